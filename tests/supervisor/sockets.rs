//! The notify and control sockets: who is believed, and that nobody can hurt.

use crate::harness::{scenario, until};
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};

scenario!(a_stranger_cannot_declare_a_service_ready, |w| {
    let go = w.file("go");
    let script = format!("until [ -e {go} ]; do sleep 0.05; done; exec {} ready wait", w.fake());
    w.raw(
        "db",
        &format!(
            "kind = \"daemon\"\nexec = [\"/bin/sh\", \"-c\", {script:?}]\nready = {{ notify = true }}\n"
        ),
    );
    w.start();
    w.until_state("db", "starting");
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(b"READY=1", w.path("run/notify.sock")).unwrap();
    w.until_marked("out", "is not believed");
    assert_eq!(w.seen("db")["state"], "starting");
    std::fs::write(go, "").unwrap();
    w.until_state("db", "ready");
    assert_eq!(w.stop(), 0);
});

scenario!(a_thousand_idle_clients_and_half_a_request_hurt_nobody, |w| {
    w.service("db", &["wait"], "");
    w.start();
    w.until_state("db", "ready");
    let path = w.path("run/control.sock");
    let mut idle: Vec<UnixStream> = Vec::new();
    for i in 0..1_000 {
        let Ok(mut client) = UnixStream::connect(&path) else { break };
        if i % 2 == 0 {
            let _ = client.write_all(b"{\"v\":1,\"verb\":");
        }
        idle.push(client);
    }
    assert!(idle.len() > 300, "{}", idle.len());
    w.until_state("db", "ready");
    assert_eq!(w.stop(), 0);
});

scenario!(a_wrong_request_is_told_what_is_wrong, |w| {
    w.service("db", &["wait"], "");
    w.start();
    w.until_state("db", "ready");
    let mut client = UnixStream::connect(w.path("run/control.sock")).unwrap();
    client.write_all(b"hello\n{\"v\":1,\"verb\":\"dance\"}\n").unwrap();
    let mut answers = String::new();
    until("two answers", || {
        let mut buffer = [0; 512];
        let n = client.read(&mut buffer).unwrap();
        answers += std::str::from_utf8(&buffer[..n]).unwrap();
        (answers.lines().count() == 2).then_some(())
    });
    assert!(answers.contains("not a JSON object") && answers.contains("unknown verb `dance`"), "{answers}");
    assert_eq!(w.stop(), 0);
});

scenario!(only_a_service_can_report_and_anybody_who_may_can_stop, |w| {
    w.service("db", &["wait"], "");
    w.start();
    w.until_state("db", "ready");
    let run = w.path("run");
    let error = supafly::control::client::report(&run, &Default::default()).unwrap_err();
    assert!(error.to_string().contains("only a service"), "{error}");
    supafly::control::client::request(&run, "stop", &[]).unwrap();
    assert_eq!(w.ended().code(), Some(0));
});

scenario!(descriptors_sent_along_with_a_notification_are_not_kept, |w| {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    w.service("db", &["wait"], "");
    w.start();
    w.until_state("db", "ready");
    let before = crate::procs::descriptors(w.pid());
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(w.path("run/notify.sock")).unwrap();
    let fds = [socket.as_raw_fd(); 40];
    for _ in 0..20 {
        let part = [std::io::IoSlice::new(b"STATUS=take these")];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(socket.as_raw_fd(), &part, &rights, MsgFlags::empty(), None).unwrap();
    }
    socket.send(b"STATUS=the last").unwrap();
    until("all of them to be read", || (w.log().matches("is not believed").count() == 21).then_some(()));
    assert!(crate::procs::descriptors(w.pid()) <= before + 3, "they were kept");
    assert_eq!(w.stop(), 0);
});
