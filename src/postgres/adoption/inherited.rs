//! What a cluster of others brings along that only its owner can mend: an order of texts that another library made, and
//! passwords that nobody is let in with here. It is said, with what to do, and stops nothing.

/// What is asked of the adopted cluster; each row of an answer is one text.
pub(super) fn questions(major: u32) -> [&'static str; 2] {
    // Before 15 nobody noted a version. In C and POSIX, and in C.UTF-8, texts have one order for ever.
    let collations = if major >= 15 {
        "select pg_catalog.format('%I (%s, made with version %s, here is %s)', datname, datcollate, \
         coalesce(datcollversion, 'unknown'), coalesce(actual, 'unknown')) \
         from (select *, pg_catalog.pg_database_collation_actual_version(oid) as actual from pg_catalog.pg_database) d \
         where datallowconn and (datcollversion is distinct from actual \
         or datcollversion is null and datlocprovider = 'c' and datcollate !~ '^(C|POSIX)([.]|$)') order by datname"
    } else {
        "select pg_catalog.format('%I (%s, made with an unknown version)', datname, datcollate) from pg_catalog.pg_database \
         where datallowconn and datcollate !~ '^(C|POSIX)([.]|$)' order by datname"
    };
    let passwords =
        "select count(*)::text from pg_catalog.pg_authid where rolpassword like 'md5%' having count(*) > 0";
    [collations, passwords]
}

/// The answers in words, with what to do.
pub(super) fn words(major: u32, answers: &[Vec<String>]) -> Vec<String> {
    let answer = |at: usize| answers.get(at).map(Vec::as_slice).unwrap_or_default();
    let mut all = Vec::new();
    if !answer(0).is_empty() {
        let refresh = if major >= 15 { ", then `alter database … refresh collation version`" } else { "" };
        all.push(format!(
            "collations: texts may be in another order here than where the cluster was made, so indexes on them may miss rows: \
             {}: in each of these `reindex database …`{refresh}",
            answer(0).join(", ")
        ));
    }
    if let Some(count) = answer(1).first() {
        all.push(format!(
            "passwords: {count} of its roles have one that is kept as md5, and only SCRAM is let in here: `alter role … password \
             …` for each (`select rolname from pg_authid where rolpassword like 'md5%'`)"
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_to_do_is_said() {
        assert!(words(17, &[vec![], vec![]]).is_empty());
        let said = words(
            17,
            &[
                vec!["shop (en_US.utf8, made with version 2.36, here is 2.41)".to_owned()],
                vec!["3".to_owned()],
            ],
        );
        assert!(
            said[0].contains("shop (en_US.utf8") && said[0].contains("refresh collation version"),
            "{said:?}"
        );
        assert!(said[1].starts_with("passwords: 3 of its roles"), "{said:?}");
        let old = words(14, &[vec!["shop (de_DE, made with an unknown version)".to_owned()], vec![]]);
        assert!(old.len() == 1 && old[0].contains("reindex") && !old[0].contains("refresh"), "{old:?}");
    }
}
