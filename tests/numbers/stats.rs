use super::numbers::stats::Samples;

fn samples(values: &[f64]) -> Samples {
    Samples::new(values.to_vec()).unwrap()
}

#[test]
fn the_median_is_the_one_in_the_middle_whatever_the_order() {
    assert_eq!(samples(&[9.0, 1.0, 5.0]).median(), 5.0);
    assert_eq!(samples(&[7.0]).median(), 7.0);
}

#[test]
fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
    assert_eq!(samples(&[4.0, 1.0, 2.0, 100.0]).median(), 3.0);
}

#[test]
fn one_wild_sample_moves_no_median() {
    assert_eq!(samples(&[1.0, 2.0, 3.0, 4.0, 1e9]).median(), 3.0);
    assert_eq!(samples(&[1.0, 2.0, 3.0, 4.0, 5.0]).median(), 3.0);
}

#[test]
fn least_most_and_count_are_of_all() {
    let s = samples(&[3.0, -1.0, 2.0]);
    assert_eq!((s.least(), s.most(), s.count()), (-1.0, 3.0, 3));
}

#[test]
fn nothing_can_be_said_of_no_samples_or_of_no_numbers() {
    assert!(Samples::new(vec![]).is_err());
    assert!(Samples::new(vec![1.0, f64::NAN]).is_err());
    assert!(Samples::new(vec![f64::INFINITY]).is_err());
}
