//! Who may connect and how: `pg_hba.conf` and `pg_ident.conf`. Pure.
//!
//! Over the Unix socket the kernel vouches for the user (peer) and a map says which database role that is; everybody
//! else needs a password (SCRAM). Nothing is trusted. Rendered at every boot, so that a restored cluster gets ours.

/// Users of the operating system that the map needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// The user that runs Postgres.
    pub postgres: String,
    /// The user that runs keeper.
    pub keeper: String,
    /// Whether root is one of those who come (it runs `setup` and `datadir`).
    pub root: bool,
}

/// `pg_hba.conf`. Peer first for our two roles, then a password; `local … peer` fails for good when the map does not
/// fit, so each of the two names its role.
#[must_use]
pub fn hba() -> String {
    "# Rendered at every boot by `supafly datadir`: changes here are lost.\n\
     local all postgres peer map=supafly\n\
     local all supafly peer map=supafly\n\
     local all all scram-sha-256\n\
     host all all all scram-sha-256\n\
     local replication supafly peer map=supafly\n\
     host replication all all scram-sha-256\n"
        .to_owned()
}

/// `pg_ident.conf`
#[must_use]
pub fn ident(users: &Users) -> String {
    let mut lines = vec![(users.postgres.as_str(), "postgres"), (users.keeper.as_str(), "supafly")];
    if users.root {
        lines.push(("root", "postgres"));
        lines.push(("root", "supafly"));
    }
    lines.dedup();
    let mut text = "# Rendered at every boot by `supafly datadir`: changes here are lost.\n".to_owned();
    for (system, role) in lines {
        text.push_str(&format!("supafly \"{system}\" {role}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_trusted() {
        assert!(!hba().contains("trust") && !hba().contains("md5"));
        assert!(hba().lines().filter(|l| l.starts_with("host")).all(|l| l.ends_with("scram-sha-256")));
    }

    #[test]
    fn each_user_gets_its_role() {
        let users = |postgres: &str, keeper: &str, root| Users {
            postgres: postgres.into(),
            keeper: keeper.into(),
            root,
        };
        let text = ident(&users("postgres", "supafly", true));
        assert!(
            text.contains("supafly \"root\" postgres\n") && text.contains("supafly \"supafly\" supafly\n")
        );
        assert!(!text.contains("\"supafly\" postgres"));
        let text = ident(&users("ann", "ann", false));
        assert!(
            text.contains("supafly \"ann\" postgres\nsupafly \"ann\" supafly\n") && !text.contains("root")
        );
    }
}
