//! Whether the rules that the kernel lists are those that were sent.
//!
//! The kernel lists an expression with more attributes than it was sent with, defaults and results of its own, so that each
//! rule is compared expression by expression: the same ones in the same order, with every attribute that was sent.

use crate::network::hostport::nft::HEADER;
use crate::network::message::{Answer, Message, Parsed};

/// `NFTA_RULE_CHAIN` and `NFTA_RULE_EXPRESSIONS`.
const CHAIN: u16 = 2;
const EXPRESSIONS: u16 = 4;
/// `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_LOOKUP_SET_ID`: of the batch that makes the set, never listed.
const SET_ID: u16 = 4;
/// Lists within the data of an expression: a value, and the verdict in it.
const DEEPEST: u8 = 2;

/// Whether each chain has these rules in this order, and no others.
pub(in crate::network) fn are_alike(sent: &[Message], listed: &[Answer]) -> bool {
    let sent: Vec<Parsed<'_>> = sent.iter().map(|rule| rule.attributes(HEADER)).collect();
    let listed: Vec<Parsed<'_>> = listed.iter().map(|rule| rule.attributes(HEADER)).collect();
    let chain = |rule: &Parsed<'_>| rule.string(CHAIN);
    sent.len() == listed.len()
        && sent.iter().map(chain).all(|name| {
            let of = |rules: &[Parsed<'_>]| rules.iter().filter(|rule| chain(rule) == name).count();
            let pairs = sent.iter().filter(|rule| chain(rule) == name);
            let pairs = pairs.zip(listed.iter().filter(|rule| chain(rule) == name));
            of(&sent) == of(&listed) && pairs.into_iter().all(|(sent, listed)| is_rule(*sent, *listed))
        })
}

/// An expression's name and data.
type Expression = (Option<String>, Vec<u8>);

fn is_rule(sent: Parsed<'_>, listed: Parsed<'_>) -> bool {
    let expressions = |rule: Parsed<'_>| -> Vec<Expression> {
        let list = rule.nested(EXPRESSIONS).map(|list| list.all().collect::<Vec<_>>()).unwrap_or_default();
        let parsed = list.into_iter().map(|(_, expression)| Parsed::new(expression));
        parsed.map(|one| (one.string(NAME), one.find(DATA).unwrap_or_default().to_vec())).collect()
    };
    let (sent, listed) = (expressions(sent), expressions(listed));
    let is_same = |((name, data), (other, found)): (&Expression, &Expression)| {
        let unlisted = (name.as_deref() == Some("lookup")).then_some(SET_ID);
        name == other && has_all(data, found, unlisted, DEEPEST)
    };
    sent.len() == listed.len() && sent.iter().zip(&listed).all(is_same)
}

/// Whether every attribute of a list is in another, but for one that is never listed.
fn has_all(sent: &[u8], listed: &[u8], unlisted: Option<u16>, depth: u8) -> bool {
    let listed = Parsed::new(listed);
    Parsed::new(sent).all().filter(|(kind, _)| Some(*kind) != unlisted).all(|(kind, value)| {
        listed.find(kind).is_some_and(|found| {
            let is_list = depth > 0 && Parsed::new(value).is_whole();
            found == value || is_list && has_all(value, found, None, depth - 1)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::hostport::nft::{self, Base, Meta, REGISTER, Table};
    use crate::network::message::Attributes;

    fn rule(chain: &str, expressions: &[Attributes]) -> Message {
        Table("t").rule(chain, "", expressions)
    }

    /// As the kernel lists it, with a handle and, in an expression, what was not sent.
    fn listed(chain: &str, expressions: &[Attributes]) -> Answer {
        let list = expressions.iter().fold(Attributes::new(), |list, one| list.nest(1, one));
        let attributes = Attributes::new().string(1, "t").string(CHAIN, chain).bytes(3, &[0; 8]);
        let attributes = attributes.nest(EXPRESSIONS, &list);
        Answer::new(&[&[0; 4], attributes.as_bytes()].concat())
    }

    fn with_more(name: &str, data: Attributes) -> Attributes {
        Attributes::new().string(NAME, name).nest(DATA, &data.be32(99, 7))
    }

    #[test]
    fn a_rule_is_known_by_its_expressions_and_what_was_sent_of_each() {
        let value = |octet: u8| Attributes::new().bytes(1, &[10, octet, 0, 0]);
        let compare = |octet: u8| nft::compare(REGISTER, true, &[10, octet, 0, 0]);
        let kernels =
            |octet: u8| with_more("cmp", Attributes::new().nest(3, &value(octet)).be32(2, 0).be32(1, 1));
        let meta = || nft::meta(Meta::Family, REGISTER);
        let load = || nft::payload(Base::Network, (12, 4), REGISTER + 1);
        let sent = [rule("a", &[meta(), compare(1), nft::drop_packet()]), rule("b", &[load()])];
        let same = [listed("b", &[load()]), listed("a", &[meta(), kernels(1), nft::drop_packet()])];
        assert!(are_alike(&sent, &same));
        for other in [
            vec![listed("a", &[meta(), kernels(1), nft::drop_packet()])],
            vec![listed("b", &[load()]), listed("a", &[meta(), kernels(2), nft::drop_packet()])],
            vec![listed("b", &[load()]), listed("a", &[kernels(1), meta(), nft::drop_packet()])],
            vec![listed("b", &[load()]), listed("a", &[meta(), kernels(1)])],
            vec![listed("b", &[load()]), listed("b", &[meta(), kernels(1), nft::drop_packet()])],
            vec![listed("b", &[meta()]), listed("a", &[meta(), kernels(1), nft::drop_packet()])],
        ] {
            assert!(!are_alike(&sent, &other), "{other:?}");
        }
    }
}
