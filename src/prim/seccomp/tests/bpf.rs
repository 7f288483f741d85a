//! An interpreter of the classic BPF that seccomp filters use, as strict as the kernel's checker.

use libc::sock_filter;

/// What a filter sees of a call.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    pub nr: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        let arg = |n: u32| self.args[n as usize];
        match offset {
            0 => self.nr,
            4 => self.arch,
            16.. if offset.is_multiple_of(8) => arg((offset - 16) / 8) as u32,
            20.. if offset % 8 == 4 => (arg((offset - 20) / 8) >> 32) as u32,
            _ => panic!("load from {offset}"),
        }
    }
}

/// Runs a program; returns its value and the number of instructions that it took.
pub fn run(program: &[sock_filter], data: &Data) -> (u32, usize) {
    let (mut pc, mut acc, mut steps) = (0, 0u32, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[pc];
        pc += 1;
        steps += 1;
        let jump = |yes: bool| usize::from(if yes { jt } else { jf });
        match code {
            0x20 => acc = data.word(k),
            0x54 => acc &= k,
            0x05 => pc += k as usize,
            0x15 => pc += jump(acc == k),
            0x25 => pc += jump(acc > k),
            0x35 => pc += jump(acc >= k),
            0x45 => pc += jump(acc & k != 0),
            0x06 => return (k, steps),
            _ => panic!("instruction {code:#x} at {pc}"),
        }
    }
}

/// Whether every instruction is reached by some way from the first, and every way ends in a return.
pub fn check(program: &[sock_filter]) {
    let mut reached = vec![false; program.len()];
    reached[0] = true;
    for (pc, insn) in program.iter().enumerate() {
        assert!(reached[pc], "instruction {pc} of {} is dead", program.len());
        let next = match insn.code {
            0x06 => vec![],
            0x05 => vec![insn.k as usize],
            0x15 | 0x25 | 0x35 | 0x45 => vec![insn.jt as usize, insn.jf as usize],
            _ => vec![0],
        };
        for distance in next {
            assert!(pc + 1 + distance < program.len(), "instruction {pc} leads out of the program");
            reached[pc + 1 + distance] = true;
        }
    }
}
