use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn ids_are_the_positive_numbers_written_plainly(text in ".*") {
        if let Ok(id) = text.parse::<UserId>() {
            prop_assert!(id.get() > 0);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_digit()));
        }
    }

    #[test]
    fn every_positive_number_is_an_id(number in 1..=i64::MAX) {
        prop_assert_eq!(number.to_string().parse::<UserId>().map(UserId::get), Ok(number));
    }

    #[test]
    fn accepted_names_are_short_trimmed_and_printable(text in ".*") {
        if let Ok(name) = UserName::parse(&text) {
            prop_assert_eq!(name.0.trim(), &name.0);
            prop_assert!((1..=200).contains(&name.0.chars().count()));
            prop_assert!(!name.0.chars().any(char::is_control));
            prop_assert_eq!(UserName::parse(&name.0), Ok(name.clone()));
        }
    }

    #[test]
    fn ordinary_addresses_are_accepted(local in "[a-z0-9.+-]{1,64}", domain in "[a-z0-9]{1,20}\\.[a-z]{2,10}") {
        let address = format!("{local}@{domain}");
        prop_assert!(Email::parse(&address).is_ok());
    }

    #[test]
    fn accepted_addresses_have_one_line_and_both_parts(text in ".*@?.*") {
        if let Ok(email) = Email::parse(&text) {
            let (local, domain) = email.0.rsplit_once('@').unwrap();
            prop_assert!(!local.is_empty() && !domain.is_empty() && email.0.len() <= 254);
            prop_assert!(!email.0.chars().any(char::is_whitespace));
        }
    }
}

#[test]
fn addresses_that_cannot_work_are_refused() {
    for bad in ["", "@", "a@", "@b.c", "a b@c.d", "a@b..c", "a@b@c.d", "a\n@b.c"] {
        assert!(Email::parse(bad).is_err(), "{bad:?}");
    }
}
