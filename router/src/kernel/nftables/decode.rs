//! Reading what nf_tables says. Everything here is total: what makes no sense is left out, and no
//! more is kept than a named bound.

use netlink_packet_core::NlasIterator;

use super::encode::Element;
use super::encode::attributes as a;

/// The part of an attribute's number that is one.
const NUMBER: u16 = 0x3fff;
/// Expressions of a rule that are looked at; the kernel takes 128.
const EXPRESSIONS_MAX: usize = 128;
/// Elements of one message; the kernel's messages have room for a few hundred.
const ELEMENTS_MAX: usize = 1 << 12;

/// Attributes of one object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    fn all(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let all = NlasIterator::new(self.0).map_while(Result::ok);
        all.map(|one| {
            let kind = one.kind() & NUMBER;
            let len = one.value_length();
            (kind, one.into_inner().get(4..4 + len).unwrap_or_default())
        })
    }

    /// The value of the first of this number.
    pub(crate) fn value(self, kind: u16) -> Option<&'a [u8]> {
        self.all()
            .find(|(this, _)| *this == kind)
            .map(|(_, value)| value)
    }

    pub(crate) fn inside(self, kind: u16) -> Option<Attributes<'a>> {
        self.value(kind).map(Attributes)
    }

    pub(crate) fn text(self, kind: u16) -> Option<String> {
        let text = String::from_utf8_lossy(self.value(kind)?);
        Some(text.trim_end_matches('\0').to_owned())
    }

    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        self.value(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(self, kind: u16) -> Option<u64> {
        self.value(kind)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// Bytes and packets that an expression, if it is a counter, has counted.
    fn counted(self) -> Option<(u64, u64)> {
        if self.text(a::EXPRESSION_NAME)? != "counter" {
            return None;
        }
        let data = self.inside(a::EXPRESSION_DATA)?;
        Some((data.u64(a::COUNTER_BYTES)?, data.u64(a::COUNTER_PACKETS)?))
    }

    /// The same of the first counter in a list of expressions.
    fn counted_in_list(self) -> Option<(u64, u64)> {
        let list = self.all().take(EXPRESSIONS_MAX);
        let mut expressions = list.filter(|(kind, _)| *kind == a::LIST_ELEMENT);
        expressions.find_map(|(_, inside)| Attributes(inside).counted())
    }

    /// Whether a list of expressions refuses a packet without having looked at it.
    fn refuses_all(self) -> bool {
        let list = self.all().take(EXPRESSIONS_MAX);
        let mut refuses = false;
        for (_, inside) in list.filter(|(kind, _)| *kind == a::LIST_ELEMENT) {
            let expression = Attributes(inside);
            let data = expression.inside(a::EXPRESSION_DATA);
            match expression.text(a::EXPRESSION_NAME).as_deref() {
                Some("counter" | "log") => {}
                Some("reject") => refuses = true,
                // As iptables writes it.
                Some("target") => {
                    let name = data.and_then(|data| data.text(a::TARGET_NAME));
                    refuses = name.as_deref() == Some("REJECT");
                }
                Some("immediate") => {
                    let value = data.and_then(|data| data.inside(a::IMMEDIATE_DATA));
                    let verdict = value.and_then(|value| value.inside(a::DATA_VERDICT));
                    let code = verdict.and_then(|verdict| verdict.u32(a::VERDICT_CODE));
                    refuses = code == Some(a::DROP);
                }
                _ => return false,
            }
        }
        refuses
    }
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TableState {
    pub(crate) name: String,
    pub(crate) handle: u64,
    pub(crate) flags: u32,
}

impl TableState {
    pub(crate) fn read(attributes: Attributes<'_>) -> Option<Self> {
        Some(TableState {
            name: attributes.text(a::TABLE_NAME)?,
            handle: attributes.u64(a::TABLE_HANDLE)?,
            flags: attributes.u32(a::TABLE_FLAGS).unwrap_or(0),
        })
    }
}

/// A chain, with hook, priority and policy if packets enter it by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChainState {
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) handle: u64,
    pub(crate) hook: Option<(u32, u32)>,
    pub(crate) policy: Option<u32>,
}

impl ChainState {
    pub(crate) fn read(attributes: Attributes<'_>) -> Option<Self> {
        let hook = attributes.inside(a::CHAIN_HOOK);
        Some(ChainState {
            table: attributes.text(a::CHAIN_TABLE)?,
            name: attributes.text(a::CHAIN_NAME)?,
            handle: attributes.u64(a::CHAIN_HANDLE)?,
            hook: hook
                .and_then(|hook| Some((hook.u32(a::HOOK_NUMBER)?, hook.u32(a::HOOK_PRIORITY)?))),
            policy: attributes.u32(a::CHAIN_POLICY),
        })
    }
}

/// A rule. What is in it never changes while it has its handle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RuleState {
    pub(crate) table: String,
    pub(crate) chain: String,
    pub(crate) handle: u64,
    pub(crate) user_data: Vec<u8>,
    /// Packets that came to its first counter.
    pub(crate) packets: u64,
    /// Whether it drops or rejects everything that comes to it.
    pub(crate) refuses_all: bool,
}

impl RuleState {
    pub(crate) fn read(attributes: Attributes<'_>) -> Option<Self> {
        let expressions = attributes.inside(a::RULE_EXPRESSIONS);
        let counted = expressions.and_then(Attributes::counted_in_list);
        Some(RuleState {
            table: attributes.text(a::RULE_TABLE)?,
            chain: attributes.text(a::RULE_CHAIN)?,
            handle: attributes.u64(a::RULE_HANDLE)?,
            user_data: attributes
                .value(a::RULE_USER_DATA)
                .unwrap_or_default()
                .to_vec(),
            packets: counted.map_or(0, |(_, packets)| packets),
            refuses_all: expressions.is_some_and(Attributes::refuses_all),
        })
    }
}

/// A set.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SetState {
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) handle: u64,
}

impl SetState {
    pub(crate) fn read(attributes: Attributes<'_>) -> Option<Self> {
        Some(SetState {
            table: attributes.text(a::SET_TABLE)?,
            name: attributes.text(a::SET_NAME)?,
            handle: attributes.u64(a::SET_HANDLE)?,
        })
    }
}

/// Keys of a set's elements in one message, and what was counted for each, bytes and packets.
pub(crate) fn elements(attributes: Attributes<'_>) -> Vec<Element> {
    let Some(list) = attributes.inside(a::ELEMENTS_LIST) else {
        return Vec::new();
    };
    let elements = list.all().take(ELEMENTS_MAX);
    let elements = elements.filter(|(kind, _)| *kind == a::LIST_ELEMENT);
    let element = |(_, inside): (u16, &[u8])| {
        let element = Attributes(inside);
        let key = element.inside(a::ELEMENT_KEY)?.value(a::DATA_VALUE)?;
        let one = element.inside(a::ELEMENT_EXPRESSION);
        let many = element.inside(a::ELEMENT_EXPRESSIONS);
        let counted = one
            .and_then(Attributes::counted)
            .or_else(|| many.and_then(Attributes::counted_in_list));
        Some((key.to_vec(), counted))
    };
    elements.filter_map(element).collect()
}

/// Reads the attributes as everything they may be.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    let attributes = Attributes(bytes);
    let _ = TableState::read(attributes);
    let _ = ChainState::read(attributes);
    let _ = SetState::read(attributes);
    if let Some(rule) = RuleState::read(attributes) {
        assert!(rule.user_data.len() <= bytes.len());
    }
    assert!(elements(attributes).len() <= ELEMENTS_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::nftables::Family;
    use crate::kernel::nftables::encode::{Is, Meta, Rule, Table, Verdict, attribute, comment};
    use proptest::prelude::*;

    fn table() -> Table {
        Table {
            family: Family::INET,
            name: "t".into(),
        }
    }

    #[test]
    fn elements_read_as_they_were_written() {
        let wanted = vec![(vec![10, 0, 0, 1], Some((7, 8))), (vec![10, 0, 0, 2], None)];
        let [change] = &table().put("s", &wanted)[..] else {
            panic!("one message")
        };
        assert_eq!(elements(Attributes(&change.attributes)), wanted);
    }

    #[test]
    fn a_rule_reads_as_it_was_written() {
        let rule = Rule::default().count().end(Verdict::Drop);
        let mut bytes = table().first_rule("c", &rule, "mine").attributes;
        assert_eq!(RuleState::read(Attributes(&bytes)), None);
        bytes.extend(attribute(a::RULE_HANDLE, &5u64.to_be_bytes()));
        let read = RuleState::read(Attributes(&bytes)).unwrap();
        assert_eq!((read.chain.as_str(), read.handle), ("c", 5));
        assert_eq!((read.user_data, read.packets), (comment("mine"), 0));
        assert!(read.refuses_all);
    }

    #[test]
    fn what_refuses_all_is_told_from_what_looks_first() {
        let looks = Rule::default().interface(Meta::InterfaceIn, Is::Equal, "lo");
        let rules = [
            (Rule::default().count().end(Verdict::Accept), false),
            (looks.end(Verdict::Drop), false),
            (Rule::default().count(), false),
            (Rule::default().end(Verdict::Drop), true),
        ];
        for (rule, refuses) in rules {
            let mut bytes = table().rule("c", &rule).attributes;
            bytes.extend(attribute(a::RULE_HANDLE, &5u64.to_be_bytes()));
            let read = RuleState::read(Attributes(&bytes)).unwrap();
            assert_eq!(read.refuses_all, refuses, "{rule:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_reading_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let attributes = Attributes(&bytes);
            let _ = (TableState::read(attributes), ChainState::read(attributes));
            let _ = (RuleState::read(attributes), SetState::read(attributes));
            prop_assert!(elements(attributes).len() <= bytes.len());
        }

        #[test]
        fn nor_does_a_damaged_answer(at in 0..400usize, with in any::<u8>(), cut in 0..400usize) {
            let all: Vec<_> = (0..4u8).map(|n| (vec![n; 4], Some((1, 2)))).collect();
            let mut bytes = table().put("s", &all)[0].attributes.clone();
            let len = bytes.len();
            bytes[at % len] = with;
            bytes.truncate(cut.min(len));
            prop_assert!(elements(Attributes(&bytes)).len() <= bytes.len());
        }
    }
}
