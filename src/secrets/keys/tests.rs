use super::*;
use crate::exit::Exit;

const NOW: u64 = 1_790_000_000;
const OWN: &str = "a secret of one's own: $(HOME) \"quoted\" \\ ä";
const DEMO: &str = "super-secret-jwt-token-with-at-least-32-characters-long";

fn try_settle(
    kept: Map<String, Value>,
    given: &[(&str, &str)],
    place: Place,
    seed: &str,
) -> Result<(Map<String, Value>, Warnings), Failure> {
    let ask = |name: &str| Ok(given.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()));
    let random = |length: usize| seed.repeat(length);
    settle(kept, &World { given: &ask, random: &random, now: NOW, place })
}

fn made(kept: Map<String, Value>, given: &[(&str, &str)], seed: &str) -> Map<String, Value> {
    try_settle(kept, given, Place::Open, seed).unwrap().0
}

fn refusal(given: &[(&str, &str)], place: Place) -> String {
    let failure = try_settle(Map::new(), given, place, "r").unwrap_err();
    assert_eq!(failure.exit, Exit::Config);
    for (_, value) in given.iter().filter(|(_, value)| *value != "postgres") {
        assert!(!failure.message.contains(value), "the message shows a secret: {failure}");
    }
    failure.message
}

fn claims(all: &Map<String, Value>, name: &str) -> Value {
    jwt::verify(all["jwt_secret"].as_str().unwrap(), all[name].as_str().unwrap()).unwrap()
}

#[test]
fn everything_is_made_once_and_kept() {
    let first = made(Map::new(), &[], "a");
    assert!(first["jwt_secret"].as_str().unwrap().len() >= 32);
    assert_eq!(claims(&first, "anon_key")["role"], "anon");
    assert_eq!(claims(&first, "service_role_key")["role"], "service_role");
    assert_eq!(claims(&first, "anon_key")["iss"], "supabase");
    assert_eq!(first["jwt_expiry"], 3600);
    for (name, _) in PASSWORDS {
        assert_eq!(first[*name].as_str().unwrap().len(), 32);
    }
    for (name, length) in SUPAVISOR {
        assert_eq!(first[*name].as_str().unwrap().len(), *length);
    }
    assert_eq!(made(first.clone(), &[], "b"), first);
}

#[test]
fn a_vault_key_of_another_length_is_refused_and_one_that_is_gone_is_made_anew() {
    let mut kept = made(Map::new(), &[], "a");
    kept.insert(VAULT.to_owned(), json!("geheim"));
    let why = try_settle(kept.clone(), &[], Place::Desk, "b").unwrap_err().message;
    assert!(why.contains("should have 32 characters and has 6") && !why.contains("geheim"), "{why}");
    kept.remove(VAULT);
    assert_eq!(made(kept, &[], "b")[VAULT], "b".repeat(32));
}

#[test]
fn what_is_given_wins_and_the_keys_follow_its_secret() {
    let first = made(Map::new(), &[], "a");
    let given = [("JWT_SECRET", OWN), ("AUTHENTICATOR_PASSWORD", "it's \"mine\""), ("JWT_EXPIRY", "60")];
    let second = made(first.clone(), &given, "b");
    assert_eq!(second["jwt_secret"], OWN);
    assert_ne!(second["anon_key"], first["anon_key"]);
    assert_eq!(claims(&second, "anon_key")["role"], "anon");
    assert_eq!(second["authenticator"], "it's \"mine\"");
    assert_eq!(second["pgbouncer"], first["pgbouncer"]);
    assert_eq!(second["jwt_expiry"], 60);
    assert_eq!(made(second.clone(), &[], "c"), second, "what was given once is kept");
}

#[test]
fn a_given_key_must_match_the_secret_and_its_role() {
    let anon = jwt::sign(OWN, &json!({"role": "anon", "iss": "mine"}));
    let all = made(Map::new(), &[("JWT_SECRET", OWN), ("ANON_KEY", &anon)], "a");
    assert_eq!(all["anon_key"], anon);
    let other = jwt::api_key("another secret that is long enough, too", "anon", NOW);
    let said = refusal(&[("JWT_SECRET", OWN), ("ANON_KEY", &other)], Place::Desk);
    assert!(said.contains("ANON_KEY does not match JWT_SECRET"), "{said}");
    let said = refusal(&[("JWT_SECRET", OWN), ("SERVICE_ROLE_KEY", &anon)], Place::Desk);
    assert!(said.contains("`role` should be `service_role`"), "{said}");
    let said = refusal(&[("ANON_KEY", &anon)], Place::Desk);
    assert!(said.contains("give JWT_SECRET too"), "{said}");
    // A machine that knows the secret from an earlier boot needs only the key.
    assert_eq!(made(all.clone(), &[("ANON_KEY", &anon)], "b"), all);
}

#[test]
fn a_key_that_we_made_is_made_anew_when_it_has_expired_and_a_given_one_is_told() {
    let mut kept = made(Map::new(), &[], "a");
    let secret = kept["jwt_secret"].as_str().unwrap().to_owned();
    let old = jwt::sign(&secret, &json!({"role": "anon", "exp": NOW}));
    kept.insert("anon_key".into(), Value::String(old.clone()));
    assert!(claims(&made(kept.clone(), &[], "b"), "anon_key")["exp"].as_u64().unwrap() > NOW);
    // Made under a clock that was years ahead: PostgREST takes no key of tomorrow.
    let ahead = jwt::api_key(&secret, "anon", NOW + 86_400);
    let of_tomorrow = Map::from_iter([
        ("jwt_secret".into(), Value::String(secret.clone())),
        ("anon_key".into(), Value::String(ahead)),
    ]);
    assert_eq!(claims(&made(of_tomorrow, &[], "b"), "anon_key")["iat"], NOW);
    let (all, warnings) = try_settle(kept, &[("ANON_KEY", &old)], Place::Open, "b").unwrap();
    assert_eq!(all["anon_key"], old);
    assert_eq!(warnings, ["ANON_KEY has expired: nobody can use it"]);
}

#[test]
fn a_secret_that_cannot_be_used_is_refused_and_not_shown() {
    let short = "x".repeat(31);
    for (secret, why) in [
        (short.as_str(), "too short"),
        ("{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ\"}", "JSON Web Key"),
        ("a line\nbreak in a secret that is long enough", "line break"),
    ] {
        let said = refusal(&[("JWT_SECRET", secret)], Place::Desk);
        assert!(said.contains(why), "{said}");
    }
    assert!(refusal(&[("JWT_EXPIRY", "an hour")], Place::Desk).contains("JWT_EXPIRY"));
    // initdb takes the first line of a password, and a file from Windows ends in a carriage return.
    for odd in ["a\0b", "a\nb", "ab\r"] {
        assert!(refusal(&[("PGBOUNCER_PASSWORD", odd)], Place::Desk).contains("control character"));
    }
}

#[test]
fn what_everybody_knows_is_refused_in_the_open_and_told_elsewhere() {
    let demo_key =
        jwt::sign(DEMO, &json!({"iss": "supabase-demo", "role": "anon", "exp": 1_983_812_996_u64}));
    for given in [
        vec![("JWT_SECRET", DEMO)],
        vec![("JWT_SECRET", "your-super-secret-jwt-token-with-at-least-32-characters-long")],
        vec![("JWT_SECRET", DEMO), ("ANON_KEY", &demo_key)],
        vec![("SUPABASE_ADMIN_PASSWORD", "postgres")],
    ] {
        assert!(refusal(&given, Place::Open).contains("well-known"), "{given:?}");
        let (_, warnings) = try_settle(Map::new(), &given, Place::Desk, "r").unwrap();
        assert!(
            !warnings.is_empty() && warnings.iter().all(|w| w.contains("refused on Fly")),
            "{warnings:?}"
        );
    }
    // The demo key beside a secret of one's own: said what it is, not only that it does not match.
    let said = refusal(&[("JWT_SECRET", OWN), ("ANON_KEY", &demo_key)], Place::Open);
    assert!(said.contains("ANON_KEY is a well-known one"), "{said}");
    // Kept from the desk, it is found when the machine moves into the open.
    let (kept, _) = try_settle(Map::new(), &[("JWT_SECRET", DEMO)], Place::Desk, "r").unwrap();
    let said = try_settle(kept, &[], Place::Open, "r").unwrap_err().message;
    assert!(said.contains("give another as JWT_SECRET"), "none was given, so none helps: {said}");
}

#[test]
fn each_consumer_gets_its_part_and_names_of_other_releases_stay() {
    let mut kept = Map::new();
    kept.insert("of_tomorrow".into(), json!("x"));
    let all = made(kept, &[], "a");
    assert_eq!(all["of_tomorrow"], "x");
    let part = part(&all, &["pgbouncer", "nothing"]);
    assert_eq!(part.keys().collect::<Vec<_>>(), ["pgbouncer"]);
}
