//! What a figure shall reach, and whether it does. Pure.

/// What figures of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "rows come and go, units stay")]
pub(crate) enum Unit {
    Milliseconds,
    Seconds,
    /// 1 000 000 bytes.
    Megabytes,
    MegabytesPerSecond,
    Count,
    /// One thing divided by another.
    Ratio,
}

impl Unit {
    pub(crate) const fn shown(self) -> &'static str {
        match self {
            Unit::Milliseconds => "ms",
            Unit::Seconds => "s",
            Unit::Megabytes => "MB",
            Unit::MegabytesPerSecond => "MB/s",
            Unit::Count => "",
            Unit::Ratio => "×",
        }
    }

    /// A figure with its unit, to three digits that mean something.
    pub(crate) fn show(self, value: f64) -> String {
        let digits = match value.abs() {
            v if v >= 100.0 => 0,
            v if v >= 10.0 => 1,
            v if v >= 1.0 => 2,
            _ => 3,
        };
        format!("{value:.digits$} {}", self.shown()).trim_end().to_owned()
    }
}

/// What our median is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(dead_code, reason = "as above")]
#[allow(clippy::enum_variant_names, reason = "they are read as `at most`, `at least`")]
pub(crate) enum Goal {
    /// Not above this.
    AtMost(f64),
    /// Not below this.
    AtLeast(f64),
    /// Not above `factor` times the smallest median of the rivals, and `plus` on top.
    AtMostPeer { factor: f64, plus: f64 },
    /// Not below `factor` times the largest median of the rivals.
    AtLeastPeer { factor: f64 },
}

/// Which figures are the better ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

/// Whether a goal is reached.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Met,
    /// Why not, in figures.
    Missed(String),
    /// What it is compared with is not there.
    Unknown(String),
}

impl Goal {
    pub(crate) const fn better(self) -> Better {
        match self {
            Goal::AtMost(_) | Goal::AtMostPeer { .. } => Better::Less,
            Goal::AtLeast(_) | Goal::AtLeastPeer { .. } => Better::More,
        }
    }

    /// As a person reads it.
    pub(crate) fn show(self, unit: Unit) -> String {
        match self {
            Goal::AtMost(limit) => format!("≤ {}", unit.show(limit)),
            Goal::AtLeast(limit) => format!("≥ {}", unit.show(limit)),
            Goal::AtMostPeer { factor, plus } => {
                let times = if (factor - 1.0).abs() < 1e-9 { String::new() } else { format!("{factor} × ") };
                let more = if plus == 0.0 { String::new() } else { format!(" + {}", unit.show(plus)) };
                format!("≤ {times}best peer{more}")
            }
            Goal::AtLeastPeer { factor } if (factor - 1.0).abs() < 1e-9 => "≥ best peer".to_owned(),
            Goal::AtLeastPeer { factor } => format!("≥ {factor} × best peer"),
        }
    }

    /// `best` is the best median of the rivals, if there is one.
    pub(crate) fn judge(self, unit: Unit, ours: f64, best: Option<f64>) -> Verdict {
        let limit = match self {
            Goal::AtMost(limit) | Goal::AtLeast(limit) => Some(limit),
            Goal::AtMostPeer { factor, plus } => best.map(|b| factor.mul_add(b, plus)),
            Goal::AtLeastPeer { factor } => best.map(|b| factor * b),
        };
        let Some(limit) = limit else {
            return Verdict::Unknown("no peer was measured".to_owned());
        };
        let (reached, sign) = match self.better() {
            Better::Less => (ours <= limit, ">"),
            Better::More => (ours >= limit, "<"),
        };
        if reached {
            Verdict::Met
        } else {
            Verdict::Missed(format!("{} {sign} {}", unit.show(ours), unit.show(limit)))
        }
    }
}
