//! `packer/versions.pkrvars.json`, made from `image/versions.toml` and `Cargo.toml` by `make docs`: packer reads no TOML.

use std::path::Path;

const FILE: &str = "packer/versions.pkrvars.json";

/// What packer needs of the versions.
fn variables(versions: &str) -> String {
    let versions: toml::Value = toml::from_str(versions).unwrap();
    let image = versions["debian"]["image"].as_str().unwrap();
    let (_, tag) = image.rsplit_once(':').unwrap();
    let debian = tag.split('-').next().unwrap();
    let major = versions["postgres"]["version"].as_str().unwrap();
    let all = serde_json::json!({"debian": debian, "postgres": major, "version": env!("CARGO_PKG_VERSION")});
    format!("{all:#}\n")
}

#[test]
fn the_page_of_packers_versions_is_made_from_those_of_the_image() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(versions) = std::fs::read_to_string(root.join("image/versions.toml")) else {
        return crate::harness::skip("there is no image/versions.toml");
    };
    let right = variables(&versions);
    if supafly::facts::environment().contains_key("SUPAFLY_BLESS") {
        std::fs::write(root.join(FILE), &right).unwrap();
    }
    assert_eq!(crate::text(FILE), right, "{FILE}: run `make docs`");
}

#[test]
fn what_the_image_is_made_of_is_what_packer_names() {
    let versions =
        "[debian]\nimage = \"docker.io/library/debian:trixie-slim\"\n[postgres]\nversion = \"17\"\n";
    let made: serde_json::Value = serde_json::from_str(&variables(versions)).unwrap();
    assert_eq!((&made["debian"], &made["postgres"]), (&"trixie".into(), &"17".into()));
    let source = crate::text("packer/supafly.pkr.hcl");
    for key in made.as_object().unwrap().keys() {
        assert!(source.contains(&format!("variable \"{key}\"")), "packer has no variable {key}");
    }
    assert!(source.contains("trixie = \"13\""), "the release has no number");
}
