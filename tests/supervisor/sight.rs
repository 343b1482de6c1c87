//! What can be seen of a supervisor's world: its processes, what its services wrote, its status.

use crate::harness::{World, until};
use crate::procs;
use nix::sys::signal::Signal;

impl World {
    fn find(&self) -> (i32, Option<String>) {
        if let Some(found) = self.found.borrow().clone() {
            return found;
        }
        let root = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        let pid = until("the supervisor", || procs::supervisor(root));
        let ours = procs::namespace(i32::try_from(std::process::id()).unwrap());
        let found = (pid, procs::namespace(pid).filter(|ns| Some(ns) != ours.as_ref()));
        self.found.replace(Some(found.clone()));
        found
    }

    /// The supervisor's pid as the test sees it.
    pub(crate) fn pid(&self) -> i32 {
        self.find().0
    }

    /// The supervisor's pid as it sees itself.
    pub(crate) fn own_pid(&self) -> i32 {
        procs::inner(self.pid()).unwrap()
    }

    /// The test's number of a process that a service or the supervisor named.
    pub(crate) fn outer(&self, pid: i32) -> Option<i32> {
        match self.find().1 {
            None => procs::stat(pid).map(|_| pid),
            Some(ns) => procs::all().into_iter().find(|p| {
                procs::inner(*p) == Some(pid) && procs::namespace(*p).as_deref() == Some(ns.as_str())
            }),
        }
    }

    /// Whether a process that a service or the supervisor named is there and no zombie.
    pub(crate) fn alive(&self, pid: i32) -> bool {
        self.outer(pid).is_some_and(procs::alive)
    }

    /// Signals a process that a service or the supervisor named.
    #[track_caller]
    pub(crate) fn signal_to(&self, pid: i32, signal: Signal) {
        procs::kill(self.outer(pid).expect("the process to signal"), signal);
    }

    /// The children of the supervisor, by the test's numbers, zombies included.
    pub(crate) fn children(&self) -> Vec<i32> {
        procs::children(self.pid())
    }

    pub(crate) fn zombies(&self) -> usize {
        self.children().into_iter().filter(|p| procs::stat(*p).is_some_and(|s| s.state == 'Z')).count()
    }

    /// Living processes that this world's supervisor gave their environment.
    pub(crate) fn left(&self) -> Vec<i32> {
        procs::marked(&format!("NOTIFY_SOCKET={}", self.file("run/")), false)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    pub(crate) fn log(&self) -> String {
        self.read("out") + &self.read("err")
    }

    /// What services printed, as the objects that went out.
    pub(crate) fn objects(&self) -> Vec<serde_json::Value> {
        self.read("out").lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    /// The supervisor's own lines on a service with this message.
    pub(crate) fn told(&self, service: &str, message: &str) -> Vec<serde_json::Value> {
        let wanted = |o: &serde_json::Value| o["fields"]["service"] == service && o["message"] == message;
        self.objects().into_iter().filter(wanted).collect()
    }

    #[track_caller]
    pub(crate) fn until_marked(&self, name: &str, text: &str) {
        until(&format!("`{text}` in {name}"), || self.read(name).contains(text).then_some(()));
    }

    /// A pid that a service wrote.
    #[track_caller]
    pub(crate) fn pid_in(&self, name: &str) -> i32 {
        until(&format!("a pid in {name}"), || self.read(name).lines().last()?.parse().ok())
    }

    /// Every pid that services wrote.
    pub(crate) fn pids_in(&self, name: &str) -> Vec<i32> {
        self.lines(name).iter().filter_map(|l| l.parse().ok()).collect()
    }

    pub(crate) fn request(
        &self,
        verb: &str,
        service: Option<&str>,
    ) -> Result<serde_json::Value, supafly::control::client::ClientError> {
        let arguments: Vec<(&str, serde_json::Value)> =
            service.into_iter().map(|s| ("service", s.into())).collect();
        supafly::control::client::request(&self.path("run"), verb, &arguments)
    }

    pub(crate) fn status(&self) -> Option<serde_json::Value> {
        self.request("status", None).ok().map(|mut answer| answer["status"].take())
    }

    pub(crate) fn state_of(&self, service: &str) -> Option<serde_json::Value> {
        let status = self.status()?;
        status["services"].as_array()?.iter().find(|s| s["name"] == service).cloned()
    }

    /// The status at its next answer. On a busy machine one may come too late for whoever asks.
    #[track_caller]
    pub(crate) fn answer(&self) -> serde_json::Value {
        until("an answer", || self.status())
    }

    /// The same of one service.
    #[track_caller]
    pub(crate) fn seen(&self, service: &str) -> serde_json::Value {
        until(&format!("an answer that tells of {service}"), || self.state_of(service))
    }

    #[track_caller]
    pub(crate) fn until_state(&self, service: &str, state: &str) -> serde_json::Value {
        until(&format!("{service} to be {state}"), || {
            let seen = self.state_of(service)?;
            (seen["state"] == state).then_some(seen)
        })
    }

    /// Waits until every service is in this state.
    #[track_caller]
    pub(crate) fn until_all(&self, state: &str) {
        until(&format!("every service to be {state}"), || {
            let status = self.status()?;
            status["services"].as_array()?.iter().all(|s| s["state"] == state).then_some(())
        });
    }
}
