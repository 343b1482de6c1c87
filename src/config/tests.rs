use super::*;
use proptest::prelude::*;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn nothing_set_gives_the_defaults() {
    let s = Settings::read(None, &env(&[])).unwrap();
    assert_eq!(s.data, PathBuf::from("/data"));
    assert_eq!(s.store, StoreUrl::None);
    assert_eq!(s.project, "local");
    assert_eq!(s.stop_budget, Duration::from_secs(9));
    assert_eq!(s.takeover, Takeover::Never);
    assert!(s.sources.values().all(|s| *s == Source::Default));
}

#[test]
fn fly_shortens_the_stop_and_names_project_and_store() {
    let s = Settings::read(
        None,
        &env(&[("FLY_MACHINE_ID", "148e"), ("FLY_APP_NAME", "shop"), ("BUCKET_NAME", "shop-bucket")]),
    )
    .unwrap();
    assert_eq!(s.stop_budget, Duration::from_millis(4500));
    assert_eq!(s.project, "shop");
    assert_eq!(s.store, StoreUrl::S3 { bucket: "shop-bucket".into(), prefix: "shop".into() });
}

#[test]
fn the_environment_wins_over_the_file_and_both_are_named() {
    let text = "data = \"/vol\"\npg_port = 6000\n";
    let s = Settings::read(Some(("supafly.toml", text)), &env(&[("SUPAFLY_PG_PORT", "7000")])).unwrap();
    assert_eq!(s.data, PathBuf::from("/vol"));
    assert_eq!(s.pg_port, 7000);
    assert_eq!(s.sources["data"], Source::File { file: "supafly.toml".into(), line: 1 });
    assert_eq!(s.sources["pg_port"], Source::Environment("SUPAFLY_PG_PORT".into()));
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let text = "dat = \"/vol\"\nttl = \"soon\"\nmode = true\n";
    let e = Settings::read(Some(("supafly.toml", text)), &env(&[("SUPAFLY_STORE", "ftp://x")])).unwrap_err();
    let shown = e.to_string();
    assert!(shown.contains("supafly.toml:1:1: unknown key `dat`"), "{shown}");
    assert!(shown.contains("supafly.toml:2:7: `ttl` should be a duration"), "{shown}");
    assert!(shown.contains("supafly.toml:3:8: `mode` should be a text in quotes"), "{shown}");
    assert!(shown.contains("SUPAFLY_STORE: `ftp://x` should be `s3://bucket/prefix`"), "{shown}");
    assert_eq!(e.0.len(), 4);
}

#[test]
fn a_takeover_names_one_epoch_with_or_without_zeros() {
    for (text, takeover) in
        [("7", Takeover::Epoch(7)), ("0000000007", Takeover::Epoch(7)), ("auto", Takeover::Auto)]
    {
        let s = Settings::read(None, &env(&[("SUPAFLY_TAKEOVER", text)])).unwrap();
        assert_eq!(s.takeover, takeover);
    }
    assert!(Settings::read(None, &env(&[("SUPAFLY_TAKEOVER", "0")])).is_err());
}

#[test]
fn what_listens_has_an_address_with_its_port_or_is_off() {
    let s = Settings::read(None, &env(&[])).unwrap();
    assert_eq!(
        (s.web_listen.to_string(), s.web_private.to_string(), s.web_metrics.to_string()),
        ("[::]:8080".into(), "127.0.0.1:9187".into(), "off".into())
    );
    let text = "web_listen = \"off\"\nweb_private = \"0.0.0.0:0\"\n";
    let s = Settings::read(Some(("f", text)), &env(&[])).unwrap();
    assert_eq!(s.web_listen, Listen::Off);
    assert_eq!(s.web_private, Listen::At("0.0.0.0:0".parse().unwrap()));
    let e = Settings::read(None, &env(&[("SUPAFLY_WEB_LISTEN", "8080")])).unwrap_err().to_string();
    assert!(e.contains("SUPAFLY_WEB_LISTEN: `8080` should be an address with its port"), "{e}");
}

#[test]
fn new_tables_are_closed_unless_told_and_migrations_have_a_directory() {
    let s = Settings::read(None, &env(&[])).unwrap();
    assert_eq!((s.auto_expose, s.migrations), (false, None));
    let given = [("SUPAFLY_AUTO_EXPOSE", "on"), ("SUPAFLY_MIGRATIONS", "/srv/migrations")];
    let s = Settings::read(None, &env(&given)).unwrap();
    assert_eq!((s.auto_expose, s.migrations), (true, Some("/srv/migrations".into())));
    let given = [("SUPAFLY_AUTO_EXPOSE", "yes"), ("SUPAFLY_MIGRATIONS", "migrations")];
    let e = Settings::read(None, &env(&given)).unwrap_err().to_string();
    assert!(e.contains("SUPAFLY_AUTO_EXPOSE: `yes` should be `on` or `off`"), "{e}");
    assert!(e.contains("SUPAFLY_MIGRATIONS: `migrations` should be an absolute path"), "{e}");
}

#[test]
fn a_secret_is_not_shown() {
    assert_eq!(format!("{:?}", Secret::new("hunter2")), "(secret)");
}

proptest! {
    #[test]
    fn no_text_panics(text in "(\\PC|\n){0,200}", store in "\\PC{0,40}") {
        let _ = Settings::read(Some(("f", &text)), &env(&[("SUPAFLY_STORE", &store)]));
    }
}

#[test]
fn what_is_shown_names_every_row_of_the_table_in_its_order() {
    let s = Settings::read(None, &env(&[])).unwrap();
    let shown: Vec<_> = s.shown().map(|(key, _)| key).collect();
    let rows: Vec<_> = TABLE.iter().map(|row| row.key).collect();
    assert_eq!(shown, rows);
}

#[test]
fn the_ports_of_supavisor_are_ten_and_written_as_they_are_read() {
    let read = |text: &str| Settings::read(None, &env(&[("SUPAFLY_SUPAVISOR_PORTS", text)]));
    let of = |text: &str| read(text).unwrap().supavisor_ports;
    assert_eq!(Settings::read(None, &env(&[])).unwrap().supavisor_ports, of("4000, 5412, 12100-12107"));
    assert_eq!(of("4000,5412,12100-12107").to_string(), "4000, 5412, 12100-12107");
    let apart = "1, 2, 3, 5, 4, 6, 7, 8, 9, 10";
    assert_eq!(of(apart).to_string(), apart);
    assert_eq!(of(apart).all().count(), 10);
    for wrong in ["4000", "4000, 5412, 12100-12108", "0, 1-9", "1-9, 9", "9-1", "a"] {
        assert!(read(wrong).unwrap_err().to_string().contains("ten different ports"), "{wrong}");
    }
}

#[test]
fn what_other_images_call_otherwise_is_read_and_a_bad_value_is_named() {
    let s = Settings::read(None, &env(&[])).unwrap();
    assert_eq!((&s.adopt, s.pg_sockets), (&Adopt::Ask, Some("/var/run/postgresql".into())));
    let given = [
        ("SUPAFLY_ADOPT", "/var/lib/postgresql/data"),
        ("SUPAFLY_PG_SOCKETS", "off"),
        ("SUPAFLY_PG_SETTINGS", "work_mem=8MB\nmax_connections=50"),
        ("POSTGRES_INITDB_ARGS", "--locale=C"),
    ];
    let s = Settings::read(None, &env(&given)).unwrap();
    assert_eq!((s.adopt, s.pg_sockets), (Adopt::Path("/var/lib/postgresql/data".into()), None));
    assert_eq!(s.pg_settings.to_string(), "work_mem=8MB, max_connections=50");
    assert_eq!(s.pg_initdb_args.all(), ["--locale=C"]);
    let given = [
        ("SUPAFLY_ADOPT", "yes"),
        ("SUPAFLY_PG_SOCKETS", "run"),
        ("SUPAFLY_PG_SETTINGS", "archive_mode=off"),
        ("POSTGRES_INITDB_ARGS", "--auth=trust"),
    ];
    let e = Settings::read(None, &env(&given)).unwrap_err();
    let shown = e.to_string();
    assert_eq!(e.0.len(), 4);
    for word in
        ["`ask`, `never`", "an absolute path, or `off`", "archive_mode is refused", "without `--auth`"]
    {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let toml = Settings::read(
        Some(("f", "pg_settings = \"\"\"\nwork_mem=8MB\nmax_connections=50\n\"\"\"\n")),
        &env(&[]),
    );
    assert_eq!(toml.unwrap().pg_settings.to_string(), "work_mem=8MB, max_connections=50");
}

#[test]
fn a_cluster_to_adopt_and_an_epoch_to_take_over_contradict_each_other() {
    let said = |adopt: &str, takeover: &str, store: &str| {
        let given = [("SUPAFLY_ADOPT", adopt), ("SUPAFLY_TAKEOVER", takeover), ("SUPAFLY_STORE", store)];
        Settings::read(None, &env(&given)).unwrap().contradiction()
    };
    let why = said("/data/old", "3", "s3://shop/p").unwrap();
    for word in ["SUPAFLY_ADOPT=/data/old and SUPAFLY_TAKEOVER=3", "s3://shop/p", "Take SUPAFLY_ADOPT away"] {
        assert!(why.contains(word), "{word}: {why}");
    }
    for (adopt, takeover, store) in [
        // Where the prefix has no owner, `auto` takes nothing.
        ("/data/old", "auto", "s3://shop/p"),
        ("/data/old", "never", "s3://shop/p"),
        ("/data/old", "3", ""),
        ("never", "3", "s3://shop/p"),
        ("ask", "3", "s3://shop/p"),
    ] {
        assert_eq!(said(adopt, takeover, store), None, "{adopt} {takeover} {store}");
    }
}
