//! Supavisor's own database: made where that is the pooler, healed after every kill, shut to everybody else.

use crate::cluster::Cluster;

/// Any program will do: it is not run here.
const SUPAVISOR: [(&str, &str); 2] = [("SUPAFLY_POOLER", "supavisor"), ("SUPAFLY_SUPAVISOR", "/bin/sh")];
const PICTURE: &str = "select pg_get_userbyid(datdba), datacl is not null, datconnlimit from pg_database \
                       where datname = '_supabase'";
const WHOLE: &str = "supavisor_admin|t|-1";

fn may_connect(cluster: &Cluster, role: &str) -> String {
    cluster.sql(&format!("select has_database_privilege('{role}', '_supabase', 'connect')"))
}

#[test]
fn it_is_made_once_where_supavisor_is_the_pooler_and_nobody_else_may_enter() {
    let cluster = Cluster::start();
    for other in ["off", "pgbouncer"] {
        let (code, said) = cluster.setup_with(&[("SUPAFLY_POOLER", other), ("SUPAFLY_PGBOUNCER", "/bin/sh")]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(cluster.sql(PICTURE), "", "{other}");
    }
    let (code, said) = cluster.setup_with(&SUPAVISOR);
    assert!(code == Some(0) && said.contains("made the database _supabase"), "{said}");
    assert_eq!(cluster.sql(PICTURE), WHOLE);
    for role in ["anon", "authenticated", "service_role", "authenticator", "pgbouncer", "dashboard_user"] {
        assert_eq!(may_connect(&cluster, role), "f", "{role}");
    }
    assert_eq!(may_connect(&cluster, "supavisor_admin"), "t");
    // What Supavisor has in it stays, and nothing is written.
    let inside =
        |sql: &str| crate::cluster::run(cluster.command("postgres").args(["-d", "_supabase", "-c", sql]));
    assert!(inside("create schema _supavisor").status.success());
    let (code, said) = cluster.writes_nothing(|| cluster.setup_with(&SUPAVISOR));
    assert!(code == Some(0) && !said.contains("made the database"), "{said}");
    assert!(inside("drop schema _supavisor").status.success());
}

#[test]
fn a_kill_half_way_and_a_hand_that_changed_it_are_healed() {
    let cluster = Cluster::start();
    let kill = [&SUPAVISOR[..], &[("SUPAFLY_FAILPOINT", "setup.in-database")]].concat();
    let (code, said) = cluster.setup_with(&kill);
    assert_eq!(code, None, "{said}");
    assert_eq!(may_connect(&cluster, "anon"), "t", "the kill came too late to prove anything");
    let heal = || {
        let (code, said) = cluster.setup_with(&SUPAVISOR);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!((cluster.sql(PICTURE).as_str(), may_connect(&cluster, "anon").as_str()), (WHOLE, "f"));
        said
    };
    heal();
    cluster.sql("alter database _supabase owner to postgres; grant connect on database _supabase to public");
    heal();
    // What a `drop database` leaves that was cut off.
    cluster.sql("update pg_database set datconnlimit = -2 where datname = '_supabase'");
    assert!(heal().contains("it is made anew"));
}
