use super::*;
use crate::exit::Exit;

fn given(pairs: &[(&str, &str)]) -> Credentials {
    Credentials::from_environment(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIA1"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];

fn engine(c: &Credentials) -> BTreeMap<String, String> {
    c.engine_environment().into_iter().map(|(k, v)| (k, v.reveal().to_owned())).collect()
}

#[test]
fn what_is_written_is_what_is_read() {
    let c = given(&[KEYS[0], KEYS[1], ("AWS_REGION", "eu-west-1"), ("PATH", "/bin"), ("AWS_ENDPOINT", "")]);
    let text = c.to_text().unwrap();
    assert!(!text.reveal().contains("PATH"));
    assert_eq!(Credentials::from_text("f", text.reveal()).unwrap(), c);
}

#[test]
fn nothing_secret_is_shown() {
    let c = given(&[KEYS[0], KEYS[1], ("AWS_SESSION_TOKEN", "tok")]);
    let shown = format!("{c:?} {:?}", c.proof().unwrap());
    assert!(!shown.contains("hunter2") && !shown.contains("tok") && !shown.contains("AKIA1"), "{shown}");
    let e = Credentials::from_text("f", "AWS_SECRET_ACESS_KEY=hunter2").unwrap_err();
    assert!(e.message.starts_with("f:1:") && !e.message.contains("hunter2"), "{e}");
}

#[test]
fn the_s3_endpoint_goes_before_the_general_one() {
    let c = given(&[
        ("AWS_ENDPOINT", "http://c"),
        ("AWS_ENDPOINT_URL", "http://b"),
        ("AWS_ENDPOINT_URL_S3", "http://a/"),
    ]);
    assert_eq!(c.endpoint(), Some("http://a"));
    assert_eq!(given(&[("AWS_ENDPOINT", "http://c")]).endpoint(), Some("http://c"));
    assert_eq!(c.addressing("bucket"), Addressing::Path);
}

#[test]
fn tigris_is_known_by_its_host_alone() {
    for (url, tigris) in [
        ("https://fly.storage.tigris.dev", true),
        ("https://t3.storage.dev:443/", true),
        ("https://t3.storage.dev.example.com", false),
        ("http://127.0.0.1/t3.storage.dev", false),
    ] {
        let c = given(&[("AWS_ENDPOINT_URL_S3", url)]);
        assert_eq!(c.is_tigris(), tigris, "{url}");
        assert_eq!(c.region(), if tigris { "auto" } else { "us-east-1" });
    }
    let env = engine(&given(&[KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL_S3", "https://fly.storage.tigris.dev")]));
    assert_eq!(env["AWS_S3_FORCE_PATH_STYLE"], "false");
    assert_eq!(env["S3_REQUEST_ADDITIONAL_HEADERS"], "X-Tigris-Consistent: \"true\"");
}

#[test]
fn the_engine_gets_its_own_names() {
    let env = engine(&given(&[
        KEYS[0],
        KEYS[1],
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000/"),
        ("AWS_CA_BUNDLE", "/ca.pem"),
    ]));
    assert_eq!(env["AWS_ENDPOINT"], "http://127.0.0.1:9000");
    assert_eq!(env["AWS_S3_FORCE_PATH_STYLE"], "true");
    assert_eq!(env["AWS_REGION"], "us-east-1");
    assert_eq!(env["S3_CA_CERT_FILE"], "/ca.pem");
    assert_eq!(env["AWS_SECRET_ACCESS_KEY"], "hunter2");
}

#[test]
fn half_a_key_pair_is_refused_by_name() {
    let e = given(&KEYS[..1]).proof().unwrap_err();
    assert!(e.exit == Exit::Config && e.message.contains("AWS_SECRET_ACCESS_KEY"), "{e}");
    assert!(given(&[]).proof().unwrap_err().message.contains("AWS_ACCESS_KEY_ID"));
    let web = given(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:x")]);
    assert!(matches!(web.proof(), Ok(Proof::WebIdentity { .. })));
}

#[test]
fn encryption_is_one_that_both_writers_can_apply() {
    assert_eq!(given(&[]).encryption().unwrap(), None);
    assert_eq!(given(&[("S3_SSE", "AES256")]).encryption().unwrap(), Some(("AES256", None)));
    for bad in [[("S3_SSE", "aws:kms")], [("S3_SSE", "x")], [("S3_SSE_C", "k")], [("S3_SSE_KMS_ID", "i")]] {
        assert!(given(&bad).encryption().is_err(), "{bad:?}");
    }
}

#[test]
fn the_file_goes_before_the_environment_when_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store");
    let env = BTreeMap::from([("AWS_REGION".to_owned(), "from-env".to_owned())]);
    assert_eq!(Credentials::read(&file, &env).unwrap().region(), "from-env");
    std::fs::write(&file, "# x\n\nAWS_REGION=from-file\n").unwrap();
    assert_eq!(Credentials::read(&file, &env).unwrap().region(), "from-file");
}
