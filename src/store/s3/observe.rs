//! Watches each request where it leaves and comes back as HTTP: status, error document and request id, of which
//! `object_store` hands on too little, and whether a request was sent at all, which decides whether it may be repeated.
//! The header that Tigris needs for a consistent answer is added here too (it is not part of the signature).

use crate::store::classify::{Answer, Listing, listing};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{ClientOptions, HeaderValue};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

/// The last that was seen of a request.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    /// No request was made.
    Nothing,
    /// There was no connection, so nothing can have been carried out.
    NotSent(String),
    /// It may have been sent; no whole answer came.
    Lost(String),
    /// The server said yes and then something that is no answer to the request.
    Nonsense(String),
    /// The server said no.
    Refusal(Answer),
    /// The server said yes.
    Success {
        /// Its own id of the request.
        request_id: Option<String>,
    },
}

tokio::task_local! {
    static SEEN: Arc<Mutex<Seen>>;
}

/// Runs a request and tells what was seen of it.
pub(super) async fn watch<T>(request: impl Future<Output = T>) -> (T, Seen) {
    let cell = Arc::new(Mutex::new(Seen::Nothing));
    let value = SEEN.scope(Arc::clone(&cell), request).await;
    let seen = cell.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (value, seen)
}

fn saw(seen: Seen) {
    // Outside of `watch` nobody asks.
    let _ = SEEN.try_with(|cell| *cell.lock().unwrap_or_else(PoisonError::into_inner) = seen);
}

/// An error with its causes; the outer ones alone say only "error sending request".
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The transport failed, not the meaning of what it carried.
pub(super) fn is_transport(error: &(dyn Error + 'static)) -> bool {
    is::<HttpError>(error) || is::<std::io::Error>(error)
}

/// The error or one of its causes is an `E`.
pub(super) fn is<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        if error.is::<E>() {
            return true;
        }
        at = error.source();
    }
    false
}

/// Makes watched clients.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) tigris: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { inner, tigris: self.tigris }))
    }
}

#[derive(Debug)]
struct Watched {
    inner: HttpClient,
    tigris: bool,
}

impl Watched {
    async fn send(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if self.tigris {
            request.headers_mut().insert("x-tigris-consistent", HeaderValue::from_static("true"));
        }
        let lists = request.uri().query().is_some_and(|q| q.split('&').any(|p| p.starts_with("list-type=")));
        let answer = self.inner.execute(request).await.inspect_err(failed)?;
        let request_id = ["x-amz-request-id", "x-tigris-request-id"]
            .iter()
            .find_map(|name| Some(answer.headers().get(*name)?.to_str().ok()?.to_owned()));
        if answer.status().is_success() {
            saw(Seen::Success { request_id });
            return if lists { whole_listing(answer).await } else { Ok(answer) };
        }
        let (parts, body) = answer.into_parts();
        let body = body.bytes().await.inspect_err(failed)?;
        saw(Seen::Refusal(Answer::new(parts.status.as_u16(), request_id, &String::from_utf8_lossy(&body))));
        Ok(HttpResponse::from_parts(parts, body.into()))
    }
}

/// Reads the answer to a listing and hands it on only when it is one.
async fn whole_listing(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let body = body.bytes().await.inspect_err(failed)?;
    let not = |what: &str| Err(HttpError::new(HttpErrorKind::Decode, std::io::Error::other(what.to_owned())));
    match listing(&String::from_utf8_lossy(&body)) {
        Listing::Whole => Ok(HttpResponse::from_parts(parts, body.into())),
        Listing::Cut => {
            let what = "the listing was cut short";
            saw(Seen::Lost(what.to_owned()));
            not(what)
        }
        Listing::Nonsense => {
            let what = "the answer to a listing is not one: is this an S3 server? Check AWS_ENDPOINT_URL_S3";
            saw(Seen::Nonsense(what.to_owned()));
            not(what)
        }
    }
}

fn failed(error: &HttpError) {
    let text = chain(error);
    saw(if error.kind() == HttpErrorKind::Connect { Seen::NotSent(text) } else { Seen::Lost(text) });
}

type Answering<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Watched {
    fn call<'s, 'a>(&'s self, request: HttpRequest) -> Answering<'a>
    where
        's: 'a,
        Self: 'a,
    {
        Box::pin(self.send(request))
    }
}
