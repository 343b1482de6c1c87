//! Secrets that everybody knows, because a project that others start from has published them. Pure.
//!
//! Whoever is reached from outside with one of them is open: the service key of such a secret can be made by anybody.

use super::jwt;

/// JWT secrets of Supabase's own tool, of its compose file for self-hosting, and of what was copied from them.
const JWT_SECRETS: &[&str] = &[
    "super-secret-jwt-token-with-at-least-32-characters-long",
    "your-super-secret-jwt-token-with-at-least-32-characters-long",
    "reallyreallyreallyreallyverysafe",
];

/// Passwords of the same places.
pub const PASSWORDS: &[&str] = &[
    "postgres",
    "password",
    "supabase",
    "example",
    "mysecretpassword",
    "your-super-secret-and-long-postgres-password",
    "this_password_is_insecure_and_should_be_updated",
];

/// Whether a JWT secret is published.
pub(super) fn is_jwt_secret(secret: &str) -> bool {
    JWT_SECRETS.contains(&secret)
}

/// Whether a password is published.
pub(super) fn is_password(password: &str) -> bool {
    PASSWORDS.contains(&password)
}

/// Whether an API key is one that anybody could have signed, such as the demo keys of 2022 and 2023.
pub(super) fn is_key(key: &str) -> bool {
    JWT_SECRETS.iter().any(|secret| jwt::verify(secret, key).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_demo_keys_are_known_by_their_signature() {
        let keys = [
            // Supabase's tool, until 2025.
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJzdXBhYmFzZS1kZW1vIiwicm9sZSI6ImFub24iLCJleHAiOjE5ODM4MTI5OTZ9.CRXP1A7WOeoJeXxjNni43kdQwgnWNReilDMblYTn_I0",
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJzdXBhYmFzZS1kZW1vIiwicm9sZSI6InNlcnZpY2Vfcm9sZSIsImV4cCI6MTk4MzgxMjk5Nn0.EGIM96RAZx35lJzdJsyH-qQwv8Hdp7fsn3W0YpN81IU",
            // The compose file for self-hosting.
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyAgCiAgICAicm9sZSI6ICJhbm9uIiwKICAgICJpc3MiOiAic3VwYWJhc2UtZGVtbyIsCiAgICAiaWF0IjogMTY0MTc2OTIwMCwKICAgICJleHAiOiAxNzk5NTM1NjAwCn0.dc_X5iR_VP_qT0zsiyj_I_OZ2T9FtRU2BBNWN8Bu4GE",
        ];
        for key in keys {
            assert!(is_key(key), "{key}");
        }
        assert!(!is_key(&jwt::api_key("a secret of one's own, with 32 characters", "anon", 1)));
    }
}
