//! The `web` role: health for load balancers, status and metrics for operators, over HTTP.
//!
//! It knows nothing but what PID 1's one status says ([`cache`]) and what `/proc` shows of the services' processes
//! ([`usage`]); it may write nothing, and asks nobody while nobody asks it. It answers from the first moment of the boot
//! to the last one of the stop, because that is when load balancers need to be told: its readiness waits for its own
//! sockets only, and on SIGTERM it goes on saying "stopping" until the others are down. What is answered is decided in
//! [`routes`], [`metrics`] and [`page`], which are pure.

mod cache;
mod listen;
mod metrics;
mod page;
mod routes;
#[cfg(test)]
mod strict;
#[cfg(test)]
mod testkit;
mod usage;

use crate::config::{Listen, Settings};
use crate::control::client::{self, Report, Row};
use crate::exit::{Exit, Failure};
use crate::status::{Overall, Status};
use cache::Cache;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use listen::{Answer, Setting};
use routes::{Face, Response, Route};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use usage::{Meter, Usages};

const OPEN: Setting = Setting { key: "web_listen", variable: "SUPAFLY_WEB_LISTEN" };
const PRIVATE: Setting = Setting { key: "web_private", variable: "SUPAFLY_WEB_PRIVATE" };
const SCRAPER: Setting = Setting { key: "web_metrics", variable: "SUPAFLY_WEB_METRICS" };
/// How long the token's file may take to be read.
const TOKEN: Duration = Duration::from_millis(250);
/// How often PID 1 is asked, during the whole stop only, whether the others are down.
const FAREWELL: Duration = Duration::from_millis(100);

/// Runs the role until it is told to stop.
///
/// # Errors
/// 70 when it cannot listen where its settings say.
pub fn run(settings: &Settings) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(|e| Failure::gave_up(format!("web: cannot start its event loop: {e}")))?;
    let exit = runtime.block_on(serve(settings));
    // A file or a supervisor that does not answer must not hold the end back.
    runtime.shutdown_background();
    exit
}

/// What every request works with.
#[derive(Debug)]
struct Desk {
    cache: Arc<Cache>,
    meter: Meter,
    token: PathBuf,
    /// One thread at most waits for a volume that does not answer.
    reading: Arc<Mutex<()>>,
}

/// One listener, as requests meet it.
#[derive(Clone, Copy, Debug)]
struct Door {
    face: Face,
    /// Its private routes want the token.
    guarded: bool,
}

async fn serve(settings: &Settings) -> Result<Exit, Failure> {
    let broken = |e: std::io::Error| Failure::gave_up(format!("web: signals cannot be received: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    let desk = Arc::new(Desk {
        cache: Arc::new(Cache::new(settings.run.clone())),
        meter: Meter::default(),
        token: settings.web_token(),
        reading: Arc::default(),
    });
    let mut tasks = JoinSet::new();
    let mut open = |setting, face, wanted| -> Result<Option<(SocketAddr, Door)>, Failure> {
        let Listen::At(wanted) = wanted else { return Ok(None) };
        let (listener, address) = listen::bind(setting, wanted)?;
        let door = Door { face, guarded: face == Face::Private && !is_loopback(address) };
        let desk = Arc::clone(&desk);
        tasks.spawn(listen::serve(listener, move |parts| answer(Arc::clone(&desk), door, parts)));
        Ok(Some((address, door)))
    };
    let health = open(OPEN, Face::Open, settings.web_listen)?;
    let private = open(PRIVATE, Face::Private, settings.web_private)?;
    let scraper = open(SCRAPER, Face::Scraper, settings.web_metrics)?;
    if let Err(e) = client::notify("READY=1") {
        tracing::warn!(error = %e, "the supervisor was not told that web is ready");
    }
    tasks.spawn(tell(settings.run.clone(), report(health, private, scraper)));
    tokio::select! {
        _ = terminate.recv() => {
            let goodbye = linger(&settings.run, &mut terminate, &mut interrupt);
            // Not into the next rung: a stop in which anybody is killed is called forced.
            let _ = tokio::time::timeout(share() * 9 / 10, goodbye).await;
        }
        _ = interrupt.recv() => {}
    }
    tasks.shutdown().await;
    Ok(Exit::Clean)
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Where it listens: a row for people, values for programs.
fn report(
    health: Option<(SocketAddr, Door)>,
    private: Option<(SocketAddr, Door)>,
    scraper: Option<(SocketAddr, Door)>,
) -> Report {
    let place =
        |door: Option<(SocketAddr, Door)>| door.map_or("off".to_owned(), |(address, _)| address.to_string());
    let guarded = if private.is_some_and(|(_, door)| door.guarded) { " (with the token)" } else { "" };
    let mut detail =
        format!("health on {}, status and metrics on {}{guarded}", place(health), place(private));
    if scraper.is_some() {
        detail.push_str(&format!(", metrics for anybody on {}", place(scraper)));
    }
    tracing::info!("{detail}");
    let mut values = serde_json::Map::new();
    values.insert("health_address".to_owned(), place(health).into());
    values.insert("private_address".to_owned(), place(private).into());
    values.insert("metrics_address".to_owned(), place(scraper).into());
    let row = Row { name: "addresses".to_owned(), state: "ok".to_owned(), detail };
    Report { rows: vec![row], values, ..Report::default() }
}

/// Tells PID 1, which may have more urgent things to do at first.
async fn tell(run: PathBuf, report: Report) {
    for _ in 0..10 {
        let (run, report) = (run.clone(), report.clone());
        match tokio::task::spawn_blocking(move || client::report(&run, &report)).await {
            Ok(Ok(())) => return,
            Ok(Err(e)) => tracing::debug!(error = %e, "the addresses are not reported yet"),
            Err(e) => tracing::error!(error = %e, "the report broke off"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tracing::warn!("the addresses could not be reported: the supervisor does not take them");
}

/// The share of the stop that PID 1 gives us.
fn share() -> Duration {
    let given = crate::facts::environment().remove("SUPAFLY_STOP_MS").and_then(|ms| ms.parse().ok());
    given.map_or(Duration::from_secs(1), Duration::from_millis)
}

/// Goes on answering while the whole stops, until nothing but us is left. When only we are to stop, or PID 1 does not
/// answer, that is at once; and a second signal ends it in any case.
async fn linger(run: &std::path::Path, terminate: &mut Signal, interrupt: &mut Signal) {
    let wait = async {
        while let Some(status) = cache::ask(run.to_path_buf()).await {
            if !others_go_down(&status, std::process::id()) {
                return;
            }
            tokio::time::sleep(FAREWELL).await;
        }
    };
    tokio::select! {
        () = wait => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Pure: whether the whole stops and another service than the one with this leader still has a process.
fn others_go_down(status: &Status, us: u32) -> bool {
    let stopping = match status.state {
        Overall::Stopping => true,
        Overall::Starting | Overall::Ready | Overall::Degraded | Overall::Frozen | Overall::Stopped => false,
    };
    let other = |pid: i32| u32::try_from(pid) != Ok(us);
    stopping && status.services.iter().any(|s| s.pid.is_some_and(other))
}

/// Answers one request.
async fn answer(desk: Arc<Desk>, door: Door, parts: Parts) -> Answer {
    let response = match routes::find(door.face, parts.method.as_str(), parts.uri.path()) {
        Err(response) => response,
        Ok(route) if route.is_private() && door.guarded && !desk.knows(&parts).await => {
            routes::unauthorized()
        }
        Ok(route) => desk.respond(route).await,
    };
    sent(response)
}

impl Desk {
    async fn respond(&self, route: Route) -> Response {
        let snapshot = self.cache.look().await;
        let usages = match (route, snapshot.fresh()) {
            (Route::Metrics, Some((status, _))) => {
                let leaders = status.services.iter().filter_map(|s| Some((s.name.clone(), s.pid?))).collect();
                self.meter.read(leaders).await
            }
            (Route::Metrics, None)
            | (Route::Live | Route::Ready | Route::Services | Route::Status | Route::Page, _) => {
                Usages::new()
            }
        };
        routes::answer(route, &snapshot, &usages)
    }

    /// Whether the request shows the token. It is read each time: `secrets` may make it, or another one, after we began.
    async fn knows(&self, parts: &Parts) -> bool {
        let path = self.token.clone();
        let read = async {
            let turn = Arc::clone(&self.reading).lock_owned().await;
            let read = move || {
                let _turn = turn;
                std::fs::read(&path).inspect_err(|e| {
                    if e.kind() != std::io::ErrorKind::NotFound {
                        tracing::warn!(error = %e, file = %path.display(), "the token cannot be read");
                    }
                })
            };
            tokio::task::spawn_blocking(read).await
        };
        let token = match tokio::time::timeout(TOKEN, read).await {
            Ok(Ok(Ok(token))) => Some(token),
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => None,
        };
        let shown = parts.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        routes::shows_token(shown, token.as_deref().map(<[u8]>::trim_ascii_end))
    }
}

/// As hyper sends it.
fn sent(response: Response) -> Answer {
    let mut answer = Answer::new(Full::from(response.body));
    *answer.status_mut() =
        hyper::StatusCode::from_u16(response.code).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(response.kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some((name, value)) = response.header {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lingers_only_while_the_whole_stops_and_others_are_there() {
        let mut status = testkit::status();
        assert!(!others_go_down(&status, 1), "nothing stops");
        status.state = Overall::Stopping;
        assert!(others_go_down(&status, 1), "keeper is still there");
        assert!(!others_go_down(&status, 77), "only we are");
        status.services[0].pid = None;
        assert!(!others_go_down(&status, 1));
    }

    #[test]
    fn an_address_of_the_machine_alone_needs_no_token() {
        for (address, loopback) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(is_loopback(address.parse().unwrap()), loopback, "{address}");
        }
    }

    #[test]
    fn the_report_says_where_it_listens() {
        let door = |face, guarded| Some(("0.0.0.0:81".parse().unwrap(), Door { face, guarded }));
        let told = report(None, door(Face::Private, true), None);
        assert_eq!(
            (&told.values["health_address"], &told.values["private_address"]),
            (&"off".into(), &"0.0.0.0:81".into())
        );
        assert_eq!(told.values["metrics_address"], "off");
        let said = &told.rows[0].detail;
        assert!(said.contains("with the token") && !said.contains("anybody"), "{told:?}");
        let told = report(None, None, door(Face::Scraper, false));
        assert!(told.rows[0].detail.ends_with("metrics for anybody on 0.0.0.0:81"), "{told:?}");
    }
}
