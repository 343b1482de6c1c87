// supabase-js against the machine of a test. Gets a JSON object on standard input: where it is installed, PostgREST's port,
// the keys and a user's token. Says what it did; the first thing that is not as it should be ends it.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { text } from 'node:stream/consumers'
import { shim } from './shim.mjs'

const given = JSON.parse(await text(process.stdin))
const require = createRequire(`${given.installed}/`)
const { createClient } = require('@supabase/supabase-js')
const transport = require('ws')

const { url, close } = await shim(given)
const auth = { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false }
const client = (key, more = {}) => createClient(url, key, { auth, realtime: { transport }, ...more })
const admin = client(given.service)
const anon = client(given.anon)
const user = client(given.anon, { accessToken: async () => given.user })

const good = (answer) => {
  assert.equal(answer.error, null, JSON.stringify(answer.error))
  return answer.data
}

/** Newer versions of PostgREST have codes of their own. */
const one_of = (code, codes) => assert.ok(codes.includes(code), `${code} is none of ${codes}`)

const steps = {
  async insert() {
    const rows = [
      { name: 'apple', stars: 5, tags: ['red', 'round'], owner: given.sub },
      { name: 'banana', stars: 3, tags: ['yellow'], owner: given.sub },
      { name: 'cherry', stars: 4, tags: ['red'], owner: given.other },
    ]
    const made = await admin.from('fruits').insert(rows).select()
    assert.equal(made.status, 201)
    assert.deepEqual(good(made).map((f) => f.name), ['apple', 'banana', 'cherry'])
    const bare = await admin.from('fruits').insert({ name: 'damson', owner: given.other })
    assert.deepEqual([bare.status, bare.data, bare.error], [201, null, null])
  },
  async select() {
    const one = good(await admin.from('fruits').select('name, stars').eq('name', 'apple').single())
    assert.deepEqual(one, { name: 'apple', stars: 5 })
    assert.equal(good(await admin.from('fruits').select().eq('name', 'none').maybeSingle()), null)
    const joined = good(await admin.from('fruits').select('name, bites(depth)').eq('name', 'apple'))
    assert.deepEqual(joined, [{ name: 'apple', bites: [] }])
  },
  async filters() {
    const names = async (query) => good(await query.order('name')).map((f) => f.name)
    const all = () => admin.from('fruits').select('name')
    assert.deepEqual(await names(all().gte('stars', 4)), ['apple', 'cherry'])
    assert.deepEqual(await names(all().in('name', ['banana', 'cherry'])), ['banana', 'cherry'])
    assert.deepEqual(await names(all().ilike('name', '%AN%')), ['banana'])
    assert.deepEqual(await names(all().contains('tags', ['red'])), ['apple', 'cherry'])
    assert.deepEqual(await names(all().or('stars.eq.3,name.eq.damson')), ['banana', 'damson'])
    assert.deepEqual(await names(all().is('stars', null)), ['damson'])
    assert.deepEqual(await names(all().range(1, 2)), ['banana', 'cherry'])
  },
  async count() {
    const exact = await admin.from('fruits').select('*', { count: 'exact', head: true })
    assert.deepEqual([exact.error, exact.count, exact.data], [null, 4, null])
  },
  async update_upsert_delete() {
    const changed = good(await admin.from('fruits').update({ stars: 1 }).eq('name', 'damson').select('stars'))
    assert.deepEqual(changed, [{ stars: 1 }])
    const upserted = await admin
      .from('fruits')
      .upsert({ name: 'damson', stars: 2, owner: given.other }, { onConflict: 'name' })
      .select('stars')
    assert.deepEqual(good(upserted), [{ stars: 2 }])
    assert.equal(good(await admin.from('fruits').delete().eq('name', 'damson').select()).length, 1)
  },
  async rpc() {
    assert.equal(good(await anon.rpc('add', { a: 2, b: 40 })), 42)
    assert.equal(good(await user.rpc('whoami')), given.sub)
    assert.equal(good(await anon.rpc('whoami')), null)
  },
  async row_security() {
    assert.deepEqual(good(await anon.from('fruits').select()), [])
    const mine = good(await user.from('fruits').select('name').order('name'))
    assert.deepEqual(mine, [{ name: 'apple' }, { name: 'banana' }])
    const theirs = await user.from('fruits').insert({ name: 'elder', owner: given.other })
    assert.deepEqual([theirs.status, theirs.error.code], [403, '42501'])
  },
  async errors() {
    const missing = await admin.from('nothing').select()
    assert.equal(missing.status, 404)
    one_of(missing.error.code, ['42P01', 'PGRST205'])
    const twice = await admin.from('fruits').insert({ name: 'apple', owner: given.sub })
    assert.deepEqual([twice.status, twice.error.code], [409, '23505'])
    const none = await admin.from('fruits').select().eq('name', 'none').single()
    assert.deepEqual([none.status, none.error.code], [406, 'PGRST116'])
    const broken = await client('no-key-of-ours').from('fruits').select()
    assert.equal(broken.status, 401)
    const expired = client(given.anon, { accessToken: async () => given.expired })
    const late = await expired.from('fruits').select()
    assert.equal(late.status, 401)
    one_of(late.error.code, ['PGRST301', 'PGRST303'])
  },
  async graphql() {
    const answer = await fetch(`${url}/graphql/v1`, {
      method: 'POST',
      headers: { apikey: given.anon, 'content-type': 'application/json' },
      body: JSON.stringify({ query: '{ __typename }' }),
    })
    assert.equal(answer.status, 200)
    const said = await answer.json()
    if (given.graphql) assert.equal(said.data.__typename, 'Query')
    else assert.equal(said.errors[0].message, 'pg_graphql extension is not enabled.')
  },
}

for (const [name, step] of Object.entries(steps)) {
  await step()
  console.log(`ok ${name}`)
}
close()
