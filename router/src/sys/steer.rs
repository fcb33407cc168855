//! The BPF program that chooses a TAP's queue by a frame's flow.
//!
//! Without one, the kernel moves a flow to whichever queue its answers were written to last, and back when
//! they stay away for seconds: in the middle of the flow, whose frames then overtake each other. By this
//! program a flow has one queue for ever, and its answers one of the same worker at the other end, so that one
//! worker at each end has all of it. Which of a worker's queues that is goes by the frame's MACs, so that who
//! floods another fills one queue of each worker, and flows between others have theirs (stochastic fair queueing).
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of_val;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Step {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    value: i32,
}

/// The part of `union bpf_attr` that loading a program takes; the rest is zero.
#[repr(C)]
struct Load {
    kind: u32,
    len: u32,
    steps: u64,
    license: u64,
    unused: [u64; 8],
}

const SOCKET_FILTER: u32 = 1;
const LOAD: libc::c_int = 5;

// Registers: what a load gives, the argument, the frame, where the ports are (later the worker), the flow so far.
const LOADED: u8 = 0;
const ARGUMENT: u8 = 1;
const FRAME: u8 = 6;
const PORTS: u8 = 7;
const FLOW: u8 = 8;

const BYTE: u8 = 0x10;
const HALF: u8 = 0x08;
const WORD: u8 = 0x00;

const fn step(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Step {
    Step {
        code,
        registers: from << 4 | to,
        offset,
        value,
    }
}

/// Loads what stands at `at` in the frame, in the host's order; beyond its end the program answers 0.
const fn load(size: u8, at: i32) -> Step {
    step(0x20 | size, 0, 0, 0, at)
}

/// The same `at` bytes behind where the ports are.
const fn load_port(at: i32) -> Step {
    step(0x40 | HALF, 0, PORTS, 0, at)
}

const fn copy(to: u8, from: u8) -> Step {
    step(0xbf, to, from, 0, 0)
}

const fn set(to: u8, value: i32) -> Step {
    step(0xb7, to, 0, 0, value)
}

/// Adds what was loaded to the flow: by exclusive or, which is the same both ways.
const ADD: Step = step(0xaf, FLOW, LOADED, 0, 0);

/// Adds `value` to a register, or does to it what else the operation says.
const fn change(operation: u8, to: u8, value: i32) -> Step {
    step(operation, to, 0, 0, value)
}

const PLUS: u8 = 0x07;
const AND: u8 = 0x57;
const SHIFT_UP: u8 = 0x67;
/// These two on the lower 32 bits.
const TIMES: u8 = 0x24;
const SHIFT_DOWN: u8 = 0x74;
const MODULO: u8 = 0x94;
/// Adds the worker to what was computed.
const SUM: Step = step(0x0f, LOADED, PORTS, 0, 0);
const END: Step = step(0x95, 0, 0, 0, 0);

/// A part of the program that others jump to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    V4,
    V6,
    Ports,
    Mix,
}

enum Line {
    Begin(Part),
    Do(Step),
    /// Goes on at a part if what was loaded is this.
    IfEqual(i32, Part),
    /// Goes on at a part if it is anything else.
    IfOther(i32, Part),
    GoTo(Part),
}
use Line::{Begin, Do, GoTo, IfEqual, IfOther};

const TCP: i32 = 6;
const UDP: i32 = 17;

/// Leaves a number by the addresses and, of TCP and UDP, the ports of a frame; fragments, which have none
/// but the first, go by their addresses. [`choose`] goes on with it.
const LINES: [Line; 46] = [
    Do(copy(FRAME, ARGUMENT)),
    Do(set(FLOW, 0)),
    Do(load(HALF, 12)),
    IfEqual(0x0800, Part::V4),
    IfEqual(0x86dd, Part::V6),
    GoTo(Part::Mix),
    Begin(Part::V4),
    Do(load(WORD, 26)),
    Do(ADD),
    Do(load(WORD, 30)),
    Do(ADD),
    // Fragment offset, and whether more follow.
    Do(load(HALF, 20)),
    Do(change(AND, LOADED, 0x3fff)),
    IfOther(0, Part::Mix),
    // Header length, in words of four bytes.
    Do(load(BYTE, 14)),
    Do(change(AND, LOADED, 0x0f)),
    Do(change(SHIFT_UP, LOADED, 2)),
    Do(change(PLUS, LOADED, 14)),
    Do(copy(PORTS, LOADED)),
    Do(load(BYTE, 23)),
    IfEqual(TCP, Part::Ports),
    IfEqual(UDP, Part::Ports),
    GoTo(Part::Mix),
    Begin(Part::V6),
    // The lower halves of the addresses tell hosts apart.
    Do(load(WORD, 30)),
    Do(ADD),
    Do(load(WORD, 34)),
    Do(ADD),
    Do(load(WORD, 46)),
    Do(ADD),
    Do(load(WORD, 50)),
    Do(ADD),
    Do(set(PORTS, 54)),
    Do(load(BYTE, 20)),
    IfEqual(TCP, Part::Ports),
    IfEqual(UDP, Part::Ports),
    GoTo(Part::Mix),
    Begin(Part::Ports),
    Do(load_port(0)),
    Do(ADD),
    Do(load_port(2)),
    Do(ADD),
    Begin(Part::Mix),
    // The low bits of the ports of many systems are all alike.
    Do(copy(LOADED, FLOW)),
    Do(change(TIMES, LOADED, 0x9e37_79b1_u32 as i32)),
    Do(change(SHIFT_DOWN, LOADED, 16)),
];

/// Of the flow's number the worker, of the MACs' that worker's queue: a queue's number is that of its worker plus
/// as often the workers as it has queues before. The kernel takes it modulo all queues, which changes nothing.
fn choose(workers: i32, queues: i32) -> [Step; 14] {
    [
        change(MODULO, LOADED, workers),
        copy(PORTS, LOADED),
        // What of the MACs differs from container to container, so that one way is not as the other.
        load(WORD, 2),
        copy(FLOW, LOADED),
        change(TIMES, FLOW, 0x85eb_ca6b_u32 as i32),
        load(WORD, 8),
        ADD,
        copy(LOADED, FLOW),
        change(TIMES, LOADED, 0x9e37_79b1_u32 as i32),
        change(SHIFT_DOWN, LOADED, 16),
        change(MODULO, LOADED, queues),
        change(TIMES, LOADED, workers),
        SUM,
        END,
    ]
}

/// Puts the program together, for so many workers with so many queues each.
fn steps(workers: usize, queues: usize) -> Vec<Step> {
    let is_step = |line: &&Line| !matches!(line, Begin(_));
    let over = |at: usize, part: Part| {
        let rest = LINES.get(at + 1..).unwrap_or_default().iter();
        let before = rest.take_while(|line| !matches!(line, Begin(this) if *this == part));
        before.filter(is_step).count() as i16
    };
    let lines = LINES.iter().enumerate();
    let steps = lines.filter_map(|(at, line)| match line {
        Begin(_) => None,
        Do(step) => Some(*step),
        IfEqual(value, part) => Some(step(0x15, LOADED, 0, over(at, *part), *value)),
        IfOther(value, part) => Some(step(0x55, LOADED, 0, over(at, *part), *value)),
        GoTo(part) => Some(step(0x05, 0, 0, over(at, *part), 0)),
    });
    let [workers, queues] = [workers, queues].map(|count| i32::try_from(count).unwrap_or(1).max(1));
    steps.chain(choose(workers, queues)).collect()
}

/// Loads the program for an interface of so many workers with so many queues each.
///
/// # Errors
/// Without the privilege, or if the kernel has no such programs.
pub(crate) fn load_program(workers: usize, queues: usize) -> io::Result<OwnedFd> {
    let steps = steps(workers, queues);
    let request = Load {
        kind: SOCKET_FILTER,
        len: u32::try_from(steps.len()).unwrap_or(0),
        steps: steps.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        unused: [0; 8],
    };
    // SAFETY: the kernel reads the request, the steps and the license, which outlive the call.
    let loaded = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            LOAD,
            &raw const request,
            size_of_val(&request),
        )
    };
    let descriptor = libc::c_int::try_from(loaded).unwrap_or(-1);
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made this descriptor for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
