//! Tables, chains, rules, sets and their elements, as nf_tables takes them. Numbers are in network
//! order.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::{Change, Family};

const NESTED: u16 = 0x8000;
/// What all register numbers here are: the first of 16 bytes.
const REGISTER: u32 = 1;
/// The register that ends a rule.
const VERDICT: u32 = 0;
/// Elements of a set in one attribute, whose length has 16 bits: each takes up to 80 bytes.
const ELEMENTS_MAX: usize = 500;
/// The comment of a rule in its user data (libnftnl/udata.h).
const COMMENT: u8 = 0;

/// Requests.
pub(crate) mod message {
    pub(crate) const NEW_TABLE: u16 = 0;
    pub(crate) const GET_TABLE: u16 = 1;
    pub(crate) const DELETE_TABLE: u16 = 2;
    pub(crate) const NEW_CHAIN: u16 = 3;
    pub(crate) const GET_CHAIN: u16 = 4;
    pub(crate) const NEW_RULE: u16 = 6;
    pub(crate) const GET_RULE: u16 = 7;
    pub(crate) const DELETE_RULE: u16 = 8;
    pub(crate) const NEW_SET: u16 = 9;
    pub(crate) const GET_SET: u16 = 10;
    pub(crate) const NEW_ELEMENTS: u16 = 12;
    pub(crate) const GET_ELEMENTS: u16 = 13;
    pub(crate) const DELETE_ELEMENTS: u16 = 14;
    pub(crate) const GET_GENERATION: u16 = 16;
}

/// Numbers of attributes, by what they belong to.
pub(crate) mod attributes {
    pub(crate) const LIST_ELEMENT: u16 = 1;
    pub(crate) const TABLE_NAME: u16 = 1;
    pub(crate) const TABLE_FLAGS: u16 = 2;
    pub(crate) const TABLE_HANDLE: u16 = 4;
    pub(crate) const CHAIN_TABLE: u16 = 1;
    pub(crate) const CHAIN_HANDLE: u16 = 2;
    pub(crate) const CHAIN_NAME: u16 = 3;
    pub(crate) const CHAIN_HOOK: u16 = 4;
    pub(crate) const CHAIN_POLICY: u16 = 5;
    pub(crate) const CHAIN_TYPE: u16 = 7;
    pub(crate) const HOOK_NUMBER: u16 = 1;
    pub(crate) const HOOK_PRIORITY: u16 = 2;
    pub(crate) const HOOK_DEVICE: u16 = 3;
    pub(crate) const RULE_TABLE: u16 = 1;
    pub(crate) const RULE_CHAIN: u16 = 2;
    pub(crate) const RULE_HANDLE: u16 = 3;
    pub(crate) const RULE_EXPRESSIONS: u16 = 4;
    pub(crate) const RULE_USER_DATA: u16 = 7;
    pub(crate) const EXPRESSION_NAME: u16 = 1;
    pub(crate) const EXPRESSION_DATA: u16 = 2;
    pub(crate) const COUNTER_BYTES: u16 = 1;
    pub(crate) const COUNTER_PACKETS: u16 = 2;
    pub(crate) const SET_TABLE: u16 = 1;
    pub(crate) const SET_NAME: u16 = 2;
    pub(crate) const SET_KEY_TYPE: u16 = 4;
    pub(crate) const SET_KEY_LEN: u16 = 5;
    pub(crate) const SET_DESCRIPTION: u16 = 9;
    pub(crate) const SET_ID: u16 = 10;
    pub(crate) const SET_HANDLE: u16 = 16;
    pub(crate) const SET_EXPRESSION: u16 = 17;
    pub(crate) const DESCRIPTION_SIZE: u16 = 1;
    pub(crate) const ELEMENTS_SET: u16 = 2;
    pub(crate) const ELEMENTS_LIST: u16 = 3;
    pub(crate) const ELEMENT_KEY: u16 = 1;
    pub(crate) const ELEMENT_EXPRESSION: u16 = 7;
    pub(crate) const ELEMENT_EXPRESSIONS: u16 = 11;
    pub(crate) const DATA_VALUE: u16 = 1;
    pub(crate) const DATA_VERDICT: u16 = 2;
    pub(crate) const IMMEDIATE_DATA: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const TARGET_NAME: u16 = 1;
    /// A verdict, and a chain's policy (NF_DROP).
    pub(crate) const DROP: u32 = 0;
}
use attributes as a;

/// Where a chain is entered (linux/netfilter.h).
pub(crate) mod hook {
    /// Of family netdev.
    pub(crate) const INGRESS: u32 = 0;
    pub(crate) const INPUT: u32 = 1;
    pub(crate) const FORWARD: u32 = 2;
    pub(crate) const OUTPUT: u32 = 3;
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Accept,
}

/// What is looked at of a packet (`enum nft_meta_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meta {
    InterfaceIn = 6,
    InterfaceOut = 7,
    NetworkProtocol = 15,
    TransportProtocol = 16,
}

/// The header an offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// Which values a comparison lets go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Is {
    Equal = 0,
    Other = 1,
}

/// The expressions of a rule, one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rule(Vec<u8>);

impl Rule {
    /// Goes on if a value is, or is not, this.
    pub(crate) fn meta(self, key: Meta, is: Is, value: &[u8]) -> Rule {
        let load = [number(1, REGISTER), number(2, key as u32)].concat();
        self.with("meta", &load).compare(is, value)
    }

    /// Goes on if the name of an interface is, or is not, this.
    pub(crate) fn interface(self, key: Meta, is: Is, name: &str) -> Rule {
        // The kernel compares names in the full length of their field.
        let mut value = [0; 16];
        for (to, from) in value.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        self.meta(key, is, &value)
    }

    /// Goes on if bytes of a header are, or are not, these.
    pub(crate) fn bytes(self, header: Header, at: u32, is: Is, value: &[u8]) -> Rule {
        let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.load(header, at, len).compare(is, value)
    }

    /// Goes on if bytes of a header are an element of a set, which counts the packet then.
    pub(crate) fn among(self, header: Header, (at, len): (u32, u32), set: &str) -> Rule {
        let lookup = [attribute(1, &text(set)), number(2, REGISTER)].concat();
        self.load(header, at, len).with("lookup", &lookup)
    }

    pub(crate) fn count(self) -> Rule {
        self.with("counter", &counter(0, 0))
    }

    pub(crate) fn end(self, verdict: Verdict) -> Rule {
        let code = match verdict {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
        };
        let inside = number(1, code);
        let data = nested(2, &nested(a::DATA_VERDICT, &inside));
        self.with("immediate", &[number(1, VERDICT), data].concat())
    }

    fn load(self, header: Header, at: u32, len: u32) -> Rule {
        let load = [
            number(1, REGISTER),
            number(2, header as u32),
            number(3, at),
            number(4, len),
        ];
        self.with("payload", &load.concat())
    }

    fn compare(self, is: Is, value: &[u8]) -> Rule {
        let data = nested(3, &attribute(a::DATA_VALUE, value));
        let compare = [number(1, REGISTER), number(2, is as u32), data];
        self.with("cmp", &compare.concat())
    }

    fn with(mut self, name: &str, data: &[u8]) -> Rule {
        self.0
            .extend(nested(a::LIST_ELEMENT, &expression(name, data)));
        self
    }
}

/// A table, as objects in it name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) name: String,
}

/// What makes a chain one that packets enter by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Base<'a> {
    pub(crate) hook: u32,
    pub(crate) priority: i32,
    /// Of family netdev.
    pub(crate) device: Option<&'a str>,
    /// What becomes of packets that no rule decides.
    pub(crate) policy: Verdict,
}

/// An address in a set, and the bytes and packets counted for it where the set counts.
pub(crate) type Element = (Vec<u8>, Option<(u64, u64)>);

impl Table {
    /// The attribute that names the table, which is the first of every object.
    pub(crate) fn attribute(&self) -> Vec<u8> {
        attribute(a::TABLE_NAME, &text(&self.name))
    }

    /// Makes the table; nothing if it is there.
    pub(crate) fn create(&self) -> Change {
        self.change(message::NEW_TABLE, NLM_F_CREATE, &[])
    }

    /// Deletes it and all in it.
    pub(crate) fn delete(&self) -> Change {
        self.change(message::DELETE_TABLE, 0, &[])
    }

    pub(crate) fn chain(&self, name: &str, base: Option<Base<'_>>) -> Change {
        let mut inside = vec![attribute(a::CHAIN_NAME, &text(name))];
        if let Some(base) = base {
            let mut hook = number(a::HOOK_NUMBER, base.hook);
            hook.extend(attribute(a::HOOK_PRIORITY, &base.priority.to_be_bytes()));
            if let Some(device) = base.device {
                hook.extend(attribute(a::HOOK_DEVICE, &text(device)));
            }
            inside.push(nested(a::CHAIN_HOOK, &hook));
            let policy = u32::from(base.policy == Verdict::Accept);
            inside.push(number(a::CHAIN_POLICY, policy));
            inside.push(attribute(a::CHAIN_TYPE, &text("filter")));
        }
        self.change(message::NEW_CHAIN, NLM_F_CREATE, &inside)
    }

    /// Adds a rule at the end of a chain.
    pub(crate) fn rule(&self, chain: &str, rule: &Rule) -> Change {
        let inside = [
            attribute(a::RULE_CHAIN, &text(chain)),
            nested(a::RULE_EXPRESSIONS, &rule.0),
        ];
        self.change(message::NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, &inside)
    }

    /// Adds a rule with a comment at the head of a chain.
    pub(crate) fn first_rule(&self, chain: &str, rule: &Rule, words: &str) -> Change {
        let inside = [
            attribute(a::RULE_CHAIN, &text(chain)),
            nested(a::RULE_EXPRESSIONS, &rule.0),
            attribute(a::RULE_USER_DATA, &comment(words)),
        ];
        self.change(message::NEW_RULE, NLM_F_CREATE, &inside)
    }

    pub(crate) fn delete_rule(&self, chain: &str, handle: u64) -> Change {
        let inside = [
            attribute(a::RULE_CHAIN, &text(chain)),
            attribute(a::RULE_HANDLE, &handle.to_be_bytes()),
        ];
        self.change(message::DELETE_RULE, 0, &inside)
    }

    /// Makes a set of addresses that counts packets for each if it `counts`. `id` tells the sets of a batch
    /// apart. A set of a given size, beyond which it takes no more, is a plain hash table, the fastest there is.
    pub(crate) fn set(
        &self,
        name: &str,
        key_len: u32,
        (id, size): (u32, u32),
        counts: bool,
    ) -> Change {
        /// How nft(8) calls addresses of the two families.
        const ADDRESS_TYPES: [u32; 2] = [7, 8];
        let [v4, v6] = ADDRESS_TYPES;
        let mut inside = vec![
            attribute(a::SET_NAME, &text(name)),
            number(a::SET_KEY_TYPE, if key_len == 4 { v4 } else { v6 }),
            number(a::SET_KEY_LEN, key_len),
            nested(a::SET_DESCRIPTION, &number(a::DESCRIPTION_SIZE, size)),
            number(a::SET_ID, id),
        ];
        if counts {
            let counter = expression("counter", &counter(0, 0));
            inside.push(nested(a::SET_EXPRESSION, &counter));
        }
        self.change(message::NEW_SET, NLM_F_CREATE, &inside)
    }

    /// Puts elements into a set, with what was counted for each before if it counts.
    pub(crate) fn put(&self, set: &str, elements: &[Element]) -> Vec<Change> {
        let element = |(key, counted): &Element| {
            let mut inside = element_key(key);
            if let Some((bytes, packets)) = counted {
                let counted = expression("counter", &counter(*bytes, *packets));
                inside.extend(nested(a::ELEMENT_EXPRESSION, &counted));
            }
            inside
        };
        let elements: Vec<Vec<u8>> = elements.iter().map(element).collect();
        self.elements(message::NEW_ELEMENTS, NLM_F_CREATE, set, &elements)
    }

    /// Takes elements out of a set.
    pub(crate) fn take(&self, set: &str, keys: &[Vec<u8>]) -> Vec<Change> {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| element_key(key)).collect();
        self.elements(message::DELETE_ELEMENTS, 0, set, &keys)
    }

    fn elements(&self, kind: u16, flags: u16, set: &str, elements: &[Vec<u8>]) -> Vec<Change> {
        let part = |part: &[Vec<u8>]| {
            let list: Vec<Vec<u8>> = part
                .iter()
                .map(|one| nested(a::LIST_ELEMENT, one))
                .collect();
            let inside = [
                attribute(a::ELEMENTS_SET, &text(set)),
                nested(a::ELEMENTS_LIST, &list.concat()),
            ];
            self.change(kind, flags, &inside)
        };
        elements.chunks(ELEMENTS_MAX).map(part).collect()
    }

    fn change(&self, kind: u16, flags: u16, inside: &[Vec<u8>]) -> Change {
        let mut attributes = self.attribute();
        attributes.extend(inside.concat());
        Change {
            family: self.family,
            kind,
            flags,
            attributes,
        }
    }
}

fn element_key(key: &[u8]) -> Vec<u8> {
    nested(a::ELEMENT_KEY, &attribute(a::DATA_VALUE, key))
}

/// What nft(8) shows as the comment of a rule.
pub(crate) fn comment(words: &str) -> Vec<u8> {
    let value = text(words);
    let len = u8::try_from(value.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![COMMENT, len];
    bytes.extend(value.iter().take(len.into()));
    bytes
}

fn counter(bytes: u64, packets: u64) -> Vec<u8> {
    let bytes = attribute(a::COUNTER_BYTES, &bytes.to_be_bytes());
    let packets = attribute(a::COUNTER_PACKETS, &packets.to_be_bytes());
    [bytes, packets].concat()
}

fn expression(name: &str, data: &[u8]) -> Vec<u8> {
    let name = attribute(a::EXPRESSION_NAME, &text(name));
    [name, nested(a::EXPRESSION_DATA, data)].concat()
}

/// An attribute whose value is a number.
pub(crate) fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// `nlattr` with its value, padded to four bytes.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// An attribute whose value is attributes.
pub(crate) fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

/// A text as the kernel wants it, with a zero byte at its end.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_say_their_own_length() {
        assert_eq!(
            attribute(3, b"ab"),
            [6u16.to_ne_bytes(), 3u16.to_ne_bytes(), *b"ab", [0, 0]].concat()
        );
        let inside = attribute(1, &text("abc"));
        assert_eq!(inside.len(), 8);
        assert_eq!(nested(4, &inside)[2..4], (4u16 | NESTED).to_ne_bytes());
    }

    #[test]
    fn comments_are_as_nft_writes_them() {
        assert_eq!(comment("x"), b"\x00\x02x\x00");
        assert_eq!(comment(&"x".repeat(300)).len(), 2 + 255);
    }

    #[test]
    fn no_attribute_is_too_long_for_its_length() {
        let table = Table {
            family: Family::INET,
            name: "t".into(),
        };
        let elements = vec![(vec![0; 16], Some((u64::MAX, u64::MAX))); 1_201];
        let changes = table.put("s", &elements);
        assert_eq!(changes.len(), 3);
        for change in changes {
            assert!(change.attributes.len() <= usize::from(u16::MAX));
        }
    }
}
