// What stands before PostgREST until the gateway is there: the routes of supabase-js and the rule for its `apikey`.
import http from 'node:http'

const deny = (to, message) => {
  to.writeHead(401, { 'content-type': 'application/json' })
  to.end(JSON.stringify({ message }))
}

/** Listens on a free port of loopback; gives its address and how to close it. */
export const shim = async ({ rest, anon, service }) => {
  const server = http.createServer((from, to) => {
    const { pathname, search } = new URL(from.url, 'http://shim')
    const headers = { ...from.headers, host: `127.0.0.1:${rest}` }
    const key = headers.apikey
    if (!key) return deny(to, 'No API key found in request')
    if (key !== anon && key !== service) return deny(to, 'Unauthorized')
    headers.authorization ??= `Bearer ${key}`
    let path
    if (pathname === '/graphql/v1') {
      path = '/rpc/graphql'
      headers['content-profile'] = 'graphql_public'
    } else if (pathname.startsWith('/rest/v1/')) {
      path = pathname.slice('/rest/v1'.length)
    } else {
      to.writeHead(404)
      return to.end()
    }
    const out = http.request(
      { host: '127.0.0.1', port: rest, method: from.method, path: path + search, headers },
      (answer) => {
        to.writeHead(answer.statusCode, answer.headers)
        answer.pipe(to)
      },
    )
    out.on('error', (e) => {
      to.writeHead(502, { 'content-type': 'application/json' })
      to.end(JSON.stringify({ message: String(e) }))
    })
    from.pipe(out)
  })
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() }
}
