//! HEALTHCHECK, as docker shows it: starting, healthy, unhealthy while Postgres stands still, healthy again.

use super::container::{Container, Plan};
use super::engine::{Image, engine};

/// docker checks by itself; podman by systemd's timers, which a container of its own may not have: there we ask for it.
fn state(container: &Container) -> String {
    if engine().is_podman() {
        let _ = engine().output(&["healthcheck", "run", container.name()]);
    }
    container.inspect("{{.State.Health.Status}}")
}

#[test]
fn the_health_check_goes_from_starting_to_healthy_to_unhealthy_and_back() {
    // The image's own command, which the test below reads, but sooner. podman takes the times only with a command.
    let command = ["--health-cmd", "/usr/bin/supafly health --ready", "--health-timeout", "5s"];
    let times = ["--health-interval", "1s", "--health-start-period", "1s", "--health-retries", "2"];
    let options = [&command[..], &times[..]].concat();
    let container = Plan::new(&Image::slim()).options(&options).start();
    assert_eq!(container.inspect("{{.State.Health.Status}}"), "starting");
    container.wait("healthy", || (state(&container) == "healthy").then_some(()));
    let postgres = container.pid("postgres").unwrap();
    // All of it hangs: nothing has ended, and connections are still taken by the kernel. Not the postmaster alone: keeper
    // asks over a connection that it has, which a backend answers, so that this would not be noticed.
    let signal = |signal: &str| {
        let all = container.processes();
        let theirs = all.iter().filter(|p| p.pid == postgres || p.command.starts_with("postgres: "));
        let pids: Vec<String> = theirs.map(|p| p.pid.to_string()).collect();
        assert!(pids.len() > 4, "{all:?}");
        container.said(&["sh", "-c", &format!("kill -{signal} {}", pids.join(" "))]);
    };
    signal("STOP");
    container.wait("unhealthy", || (state(&container) == "unhealthy").then_some(()));
    let why = container.exec(&["supafly", "health", "--ready"]);
    assert_eq!(why.status.code(), Some(1));
    let why = String::from_utf8_lossy(&why.stdout).into_owned() + &String::from_utf8_lossy(&why.stderr);
    assert!(why.to_lowercase().contains("postgres"), "it does not say why: {why:?}");
    signal("CONT");
    container.wait("healthy again", || (state(&container) == "healthy").then_some(()));
    assert_eq!(container.pid("postgres"), Some(postgres), "it was only stopped");
}

#[test]
fn the_image_says_its_own_health_check_stop_signal_and_volume() {
    for image in [Image::slim(), Image::full()] {
        let config = engine().said(&["image", "inspect", "--format", "{{json .Config}}", &image.0]);
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["StopSignal"], "SIGTERM", "{image:?}");
        assert!(config["Volumes"].get("/data").is_some(), "{image:?}: {config}");
        assert_eq!(config["Volumes"].as_object().unwrap().len(), 1, "{image:?}");
        // podman shows it at a container only.
        let container = Plan::new(&image).words(&["true"]).start();
        let check: serde_json::Value =
            serde_json::from_str(&container.inspect("{{json .Config.Healthcheck}}")).unwrap();
        let command = serde_json::json!(["CMD", "/usr/bin/supafly", "health", "--ready"]);
        assert_eq!(check["Test"], command, "{image:?}");
        assert_eq!(container.wait_end(), 0, "{image:?}: the first word is executed");
        assert_eq!(config["Entrypoint"][1], "run", "{image:?}");
    }
}
