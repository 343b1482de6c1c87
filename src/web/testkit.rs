//! What the unit tests share: one status with something of everything.

use crate::status::{Overall, Readiness, Row, ServiceStatus, Status};
use serde_json::json;

/// Ready, with rows and values.
pub(super) fn status() -> Status {
    let row = |name: &str, state: &str| Row { name: name.into(), state: state.into(), detail: "told".into() };
    let values = json!({"epoch": 3, "protected": false, "archive_last": "0000000100000000000000A1", "health_address": "x:1"});
    let service = |name: &str, state: &str| ServiceStatus {
        start_ms: Some(1_500),
        name: name.to_owned(),
        state: state.to_owned(),
        detail: String::new(),
        for_ms: 7_000,
        run: Some(4),
        pid: None,
        restarts: 2,
        last: None,
        output: Vec::new(),
        rows: Vec::new(),
        values: serde_json::Map::new(),
    };
    let mut keeper = service("keeper", "ready");
    keeper.pid = Some(77);
    keeper.rows = vec![row("archive", "ok"), row("backup (wal-x 1)", "unprotected")];
    keeper.values = values.as_object().unwrap().clone();
    Status {
        version: 1,
        state: Overall::Ready,
        reason: String::new(),
        readiness: Readiness::Ready,
        up_ms: 60_000,
        services: vec![keeper, service("setup", "done")],
    }
}
