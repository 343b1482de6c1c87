//! What an answer of an S3 server means for us. Pure, so that every line of it stands in a table of the tests.
//!
//! Absence is the dangerous one: a 404 says that a key does not exist only when its body says `NoSuchKey`; the same
//! status comes from a missing bucket, a wrong endpoint and any proxy in between. A create that failed is told apart by
//! whether it can have been carried out: only what certainly was not may be sent again, because the second try would
//! meet the first one's object and report a conflict with ourselves.

use super::Kind;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Get,
    List,
    Delete,
}

impl Operation {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Get => "get",
            Operation::List => "list",
            Operation::Delete => "delete",
        }
    }
}

/// What a failed request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The store said that the key does not exist.
    Absent,
    /// A 404 that does not say what is missing: to be settled by a listing.
    AbsentUnproved,
    /// The object exists.
    Conflict,
    /// Refused.
    Denied,
    /// Temporary, and certainly not carried out.
    NotDone,
    /// Temporary, and perhaps carried out.
    Ambiguous,
    /// Not usable.
    Broken,
}

impl Class {
    pub(super) const fn kind(self) -> Kind {
        match self {
            Class::Absent => Kind::Absent,
            Class::Conflict => Kind::Conflict,
            Class::Denied => Kind::Denied,
            Class::AbsentUnproved | Class::NotDone | Class::Ambiguous => Kind::Transient,
            Class::Broken => Kind::Broken,
        }
    }
}

/// What a server answered instead of success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `<Code>` of the error document.
    pub(super) code: Option<String>,
    /// `<Message>` of the error document.
    pub(super) message: Option<String>,
    pub(super) request_id: Option<String>,
}

impl Answer {
    /// From status, request id of the headers, and body.
    pub(super) fn new(status: u16, header_id: Option<String>, body: &str) -> Answer {
        Answer {
            status,
            code: element(body, "Code"),
            message: element(body, "Message"),
            request_id: header_id.or_else(|| element(body, "RequestId")),
        }
    }

    /// For the operator: what the server said and, where we know it, what to do.
    pub(super) fn text(&self) -> String {
        let mut text = format!("HTTP {}", self.status);
        if let Some(code) = &self.code {
            text.push(' ');
            text.push_str(code);
        }
        if let Some(message) = &self.message {
            text.push_str(": ");
            text.push_str(message);
        }
        if let Some(hint) = hint(self.status, self.code.as_deref()) {
            text.push_str(" (");
            text.push_str(hint);
            text.push(')');
        }
        text
    }
}

/// The class of an answer that is not success.
pub(super) fn classify(operation: Operation, status: u16, code: Option<&str>) -> Class {
    use Operation::{Create, Delete, Get, List};
    match (status, code) {
        (404, Some("NoSuchKey")) => match operation {
            Get | Delete => Class::Absent,
            Create | List => Class::Broken,
        },
        (404, None | Some("NotFound")) => match operation {
            Get | Delete => Class::AbsentUnproved,
            Create | List => Class::Broken,
        },
        (412 | 304, _) => match operation {
            Create => Class::Conflict,
            Get | List | Delete => Class::Broken,
        },
        (409, Some("ConditionalRequestConflict" | "OperationAborted")) => Class::NotDone,
        (409, _) => Class::Ambiguous,
        (400, Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "InvalidAccessKeyId")) => {
            Class::Denied
        }
        (400, Some("RequestTimeout")) | (408, _) => Class::Ambiguous,
        (
            400,
            Some(
                "BadDigest" | "IncompleteBody" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch",
            ),
        ) => Class::NotDone,
        (401 | 403 | 407, _) => Class::Denied,
        (429, _) | (503, Some("SlowDown" | "ServiceUnavailable")) => Class::NotDone,
        (501 | 505, _) => Class::Broken,
        (500..=599, _) => Class::Ambiguous,
        (_, _) => Class::Broken,
    }
}

fn hint(status: u16, code: Option<&str>) -> Option<&'static str> {
    match (status, code) {
        (_, Some("RequestTimeTooSkewed")) => {
            Some("this machine's clock is wrong by more than the store allows: set it right")
        }
        (_, Some("NoSuchBucket")) => Some("make the bucket, or correct SUPAFLY_STORE"),
        (_, Some("InvalidAccessKeyId" | "SignatureDoesNotMatch")) => {
            Some("check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        }
        (_, Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired")) => {
            Some("AWS_SESSION_TOKEN is no longer valid: renew the credentials")
        }
        (_, Some("AuthorizationHeaderMalformed" | "PermanentRedirect" | "TemporaryRedirect"))
        | (300..=303 | 305..=399, _) => Some("AWS_REGION or the endpoint does not fit the bucket"),
        (403, _) => {
            Some("the credentials may not do this: allow s3:GetObject, PutObject, ListBucket, DeleteObject")
        }
        (404, None) => Some("not an S3 answer: check AWS_ENDPOINT_URL_S3"),
        _ => None,
    }
}

/// What a body is that came with success as the answer to a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// A listing, or a whole page of one that says where the next begins.
    Whole,
    /// The beginning of one.
    Cut,
    /// Something else.
    Nonsense,
}

/// Whether a body is a listing. The library reads any document that has no entries as an empty listing: the page of a
/// captive portal would prove that nothing was ever archived.
pub(super) fn listing(body: &str) -> Listing {
    let body = body.trim();
    let Some((before, inside)) = body.split_once("<ListBucketResult") else { return Listing::Nonsense };
    let before = before.trim();
    let declared = before.starts_with("<?xml") && before.ends_with("?>");
    if !(before.is_empty() || declared) {
        return Listing::Nonsense;
    }
    let empty = inside.ends_with("/>") && !inside.contains('<');
    if !empty && !inside.ends_with("</ListBucketResult>") {
        return Listing::Cut;
    }
    // More to come, and no word of where: what came is not all.
    let more = element(body, "IsTruncated").is_some_and(|more| more.eq_ignore_ascii_case("true"));
    if more && element(body, "NextContinuationToken").is_none() { Listing::Nonsense } else { Listing::Whole }
}

/// The text of the first `<name>` in an error document, one line, bounded.
fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation::{Create, Delete, Get, List};
    use proptest::prelude::*;

    #[test]
    fn each_answer_has_its_meaning() {
        let table: &[(Operation, u16, Option<&str>, Class)] = &[
            (Get, 404, Some("NoSuchKey"), Class::Absent),
            (Delete, 404, Some("NoSuchKey"), Class::Absent),
            (Get, 404, Some("NoSuchBucket"), Class::Broken),
            (Create, 404, Some("NoSuchBucket"), Class::Broken),
            (List, 404, Some("NoSuchBucket"), Class::Broken),
            (List, 404, Some("NoSuchKey"), Class::Broken),
            (Get, 404, None, Class::AbsentUnproved),
            (Create, 404, None, Class::Broken),
            (Create, 412, Some("PreconditionFailed"), Class::Conflict),
            (Create, 412, None, Class::Conflict),
            (Create, 304, None, Class::Conflict),
            (Get, 412, None, Class::Broken),
            (Create, 409, Some("ConditionalRequestConflict"), Class::NotDone),
            (Create, 409, None, Class::Ambiguous),
            (Get, 403, Some("AccessDenied"), Class::Denied),
            (Get, 403, Some("RequestTimeTooSkewed"), Class::Denied),
            (Get, 403, None, Class::Denied),
            (Get, 401, None, Class::Denied),
            (Get, 400, Some("ExpiredToken"), Class::Denied),
            (Create, 400, Some("RequestTimeout"), Class::Ambiguous),
            (Create, 400, Some("BadDigest"), Class::NotDone),
            (Create, 400, None, Class::Broken),
            (Create, 408, None, Class::Ambiguous),
            (Create, 429, None, Class::NotDone),
            (Create, 503, Some("SlowDown"), Class::NotDone),
            (Create, 503, None, Class::Ambiguous),
            (Create, 500, Some("InternalError"), Class::Ambiguous),
            (List, 502, None, Class::Ambiguous),
            (List, 504, None, Class::Ambiguous),
            (Create, 501, Some("NotImplemented"), Class::Broken),
            (Get, 301, Some("PermanentRedirect"), Class::Broken),
            (Get, 307, None, Class::Broken),
        ];
        for (operation, status, code, class) in table {
            assert_eq!(classify(*operation, *status, *code), *class, "{operation:?} {status} {code:?}");
        }
    }

    #[test]
    fn a_wrong_clock_is_said_plainly() {
        let body = "<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message><RequestId>R1</RequestId></Error>";
        let answer = Answer::new(403, None, body);
        assert!(answer.text().contains("clock is wrong"), "{}", answer.text());
        assert_eq!(answer.request_id.as_deref(), Some("R1"));
    }

    #[test]
    fn only_a_whole_listing_is_a_listing() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>"#;
        let open = r#"<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">"#;
        let entry = "<Contents><Key>a</Key></Contents>";
        let table = [
            (
                format!("{xml}\n{open}{entry}<IsTruncated>false</IsTruncated></ListBucketResult>\n"),
                Listing::Whole,
            ),
            (format!("{open}</ListBucketResult>"), Listing::Whole),
            (format!("{xml}<ListBucketResult/>"), Listing::Whole),
            (
                format!(
                    "{open}<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>\
                     {entry}</ListBucketResult>"
                ),
                Listing::Whole,
            ),
            (format!("{open}<IsTruncated>true</IsTruncated>{entry}</ListBucketResult>"), Listing::Nonsense),
            (format!("{xml}{open}{entry}"), Listing::Cut),
            (String::new(), Listing::Nonsense),
            ("<html><body>Please sign in</body></html>".to_owned(), Listing::Nonsense),
            (format!("<html>{open}</ListBucketResult>"), Listing::Nonsense),
            (format!("{xml}<Error><Code>InternalError</Code></Error>"), Listing::Nonsense),
            ("{}".to_owned(), Listing::Nonsense),
        ];
        for (body, meaning) in table {
            assert_eq!(listing(&body), meaning, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_listing_that_lost_its_end_is_whole(n in 0usize..100) {
            let whole = "<ListBucketResult><Contents><Key>a</Key><Size>1</Size><Owner/></Contents></ListBucketResult>";
            prop_assume!(n < whole.len());
            prop_assert!(listing(&whole[..n]) != Listing::Whole);
        }

        #[test]
        fn only_a_404_that_names_the_key_is_absence(status in 100u16..600, code in "[A-Za-z]{0,12}", some in any::<bool>()) {
            for operation in [Create, Get, List, Delete] {
                let class = classify(operation, status, some.then_some(code.as_str()));
                prop_assert!(class != Class::Absent || (status == 404 && some && code == "NoSuchKey"));
                prop_assert!(class.kind() != Kind::Absent || class == Class::Absent);
            }
        }

        #[test]
        fn no_body_panics(body in "\\PC{0,80}") {
            let _ = Answer::new(500, None, &body).text();
        }
    }
}
