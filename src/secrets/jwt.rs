//! JSON Web Tokens signed with HMAC-SHA256 (RFC 7515, RFC 7519), as far as Supabase's API keys need them. Pure.
//!
//! Written here because the digest and the alphabet are in the program anyway, for Postgres's own passwords; a library
//! for every algorithm would bring more code than this and accept more than we want.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// How long a key that we make is good for: ten years, as Supabase's own.
const LIFE: u64 = 10 * 365 * 24 * 60 * 60;

fn mac(secret: &str) -> Option<Hmac<Sha256>> {
    Hmac::new_from_slice(secret.as_bytes()).ok()
}

/// An API key for a database role, good for ten years from `now` (seconds since 1970).
#[must_use]
pub fn api_key(secret: &str, role: &str, now: u64) -> String {
    sign(secret, &json!({"iss": "supabase", "role": role, "iat": now, "exp": now.saturating_add(LIFE)}))
}

/// Signs claims.
#[must_use]
pub fn sign(secret: &str, claims: &Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    // HMAC takes keys of any length, so there is always one.
    let Some(mut mac) = mac(secret) else { return String::new() };
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// The claims of a token whose signature fits; its time is for the caller to judge.
///
/// # Errors
/// Why it is not one, without the token.
pub fn verify(secret: &str, token: &str) -> Result<Value, &'static str> {
    let (signed, signature) =
        token.rsplit_once('.').ok_or("it is no JWT (three parts with points between)")?;
    let (header, claims) = signed.split_once('.').ok_or("it is no JWT (three parts with points between)")?;
    let json = |part: &str| -> Option<Value> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok().filter(Value::is_object)
    };
    let header = json(header).ok_or("its header cannot be read")?;
    if header.get("alg").and_then(Value::as_str) != Some("HS256") {
        return Err("it is not signed with HS256");
    }
    let claims = json(claims).ok_or("its claims cannot be read")?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "its signature cannot be read")?;
    let mut mac = mac(secret).ok_or("the secret cannot be used")?;
    mac.update(signed.as_bytes());
    mac.verify_slice(&signature).map_err(|_| "it is signed with another secret")?;
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_vector_of_rfc_7515_fits() {
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0\
                      dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let mut mac = Hmac::<Sha256>::new_from_slice(&URL_SAFE_NO_PAD.decode(key).unwrap()).unwrap();
        mac.update(signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        assert_eq!(signature, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    }

    #[test]
    fn a_key_that_supabase_published_is_made_byte_for_byte() {
        let secret = "super-secret-jwt-token-with-at-least-32-characters-long";
        let published = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJzdXBhYmFzZS1kZW1vIiwicm9sZSI6ImFub24iLCJleHAi\
                         OjE5ODM4MTI5OTZ9.CRXP1A7WOeoJeXxjNni43kdQwgnWNReilDMblYTn_I0";
        let claims = json!({"iss": "supabase-demo", "role": "anon", "exp": 1_983_812_996_u64});
        assert_eq!(sign(secret, &claims), published);
        assert_eq!(verify(secret, published), Ok(claims));
        assert_eq!(verify("another", published), Err("it is signed with another secret"));
    }

    #[test]
    fn a_key_says_its_role_and_ends_after_ten_years() {
        let claims = verify("s", &api_key("s", "anon", 1_700_000_000)).unwrap();
        assert_eq!(
            claims,
            json!({"iss": "supabase", "role": "anon", "iat": 1_700_000_000_u64, "exp": 2_015_360_000_u64})
        );
    }

    #[test]
    fn what_is_signed_otherwise_or_not_at_all_is_no_key() {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let none = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(r#"{"role":"service_role"}"#));
        assert_eq!(verify("s", &none), Err("it is not signed with HS256"));
        let good = sign("s", &json!({"role": "anon"}));
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let other = format!(
            "{}.{signature}",
            signed.replace(&part(r#"{"role":"anon"}"#), &part(r#"{"role":"root"}"#))
        );
        assert_eq!(verify("s", &other), Err("it is signed with another secret"));
        for token in ["", ".", "..", "a.b", "sb_secret_abc", &format!("{signed}."), &format!("{signed}.A")] {
            assert!(verify("s", token).is_err(), "{token}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(secret in "\\PC{0,80}", token in "\\PC{0,80}") {
            let _ = verify(&secret, &token);
            let own = verify(&secret, &sign(&secret, &json!({"role": token})));
            prop_assert!(own.is_ok());
        }
    }
}
