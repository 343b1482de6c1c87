//! What Postgres stores of a password (RFC 5802 and 7677), made here so that no password is ever in a statement. Pure,
//! but for the salt, which is an argument.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// As `psql` and Postgres itself.
const ITERATIONS: u32 = 4096;
/// Nobody means more; a verifier that asks for it is not worth the time.
const MOST_ITERATIONS: u32 = 1_000_000;

/// The text for `alter role … password`.
pub(super) fn verifier(password: &str, salt: [u8; 16]) -> String {
    with(password, &salt, ITERATIONS)
}

/// Whether `stored` is the verifier of this password.
pub(super) fn fits(stored: &str, password: &str) -> bool {
    let parts = || {
        let (iterations, rest) = stored.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, _) = rest.split_once('$')?;
        let iterations = iterations.parse().ok().filter(|n| (1..=MOST_ITERATIONS).contains(n))?;
        Some((iterations, STANDARD.decode(salt).ok()?))
    };
    parts().is_some_and(|(iterations, salt)| with(password, &salt, iterations) == stored)
}

fn with(password: &str, salt: &[u8], iterations: u32) -> String {
    // What cannot be prepared is taken as it is, as Postgres does.
    let prepared = stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password));
    let salted = salted(prepared.as_bytes(), salt, iterations);
    let client = mac(&salted, &[b"Client Key"]);
    let stored = Sha256::digest(client);
    let server = mac(&salted, &[b"Server Key"]);
    let b64 = |bytes: &[u8]| STANDARD.encode(bytes);
    format!("SCRAM-SHA-256${iterations}:{}${}:{}", b64(salt), b64(&stored), b64(&server))
}

/// PBKDF2 with one block.
fn salted(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut last = mac(password, &[salt, &1u32.to_be_bytes()]);
    let mut sum = last;
    for _ in 1..iterations {
        last = mac(password, &[&last]);
        for (sum, byte) in sum.iter_mut().zip(last) {
            *sum ^= byte;
        }
    }
    sum
}

#[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_fits_its_password_and_no_other() {
        let made = verifier("hunter2", [7; 16]);
        assert!(made.starts_with("SCRAM-SHA-256$4096:BwcHBwcHBwcHBwcHBwcHBw==$"), "{made}");
        assert!(fits(&made, "hunter2"));
        assert!(!fits(&made, "hunter3") && !fits(&verifier("hunter2", [8; 16]), "hunter3"));
        for other in
            ["", "md5abc", "SCRAM-SHA-256$", "SCRAM-SHA-256$9999999:YQ==$b:c", "SCRAM-SHA-256$0:YQ==$b:c"]
        {
            assert!(!fits(other, "hunter2"), "{other}");
        }
    }

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        // RFC 7677, 3: password `pencil`; its server signature follows from this server key.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let made = with("pencil", &salt, 4096);
        assert_eq!(
            made,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }
}
