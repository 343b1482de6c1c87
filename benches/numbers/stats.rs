//! What is said of a list of samples. Pure.

/// Figures of one contestant, in the unit of their row, in the order in which they were taken.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// # Errors
    /// There is none, or one is no number: then nothing can be said of them.
    pub(crate) fn new(values: Vec<f64>) -> Result<Samples, String> {
        if values.is_empty() {
            return Err("no samples".to_owned());
        }
        if let Some(odd) = values.iter().find(|v| !v.is_finite()) {
            return Err(format!("{odd} is no figure"));
        }
        Ok(Samples(values))
    }

    /// The one in the middle, or between the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
        let half = sorted.len() / 2;
        if sorted.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half - 1), at(half)) }
    }

    /// The smallest.
    pub(crate) fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The largest.
    pub(crate) fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}
