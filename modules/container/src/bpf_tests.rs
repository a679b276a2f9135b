//! What the kernel makes of a filter, for tests.

/// `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
pub(crate) fn call(arch: u32, number: u32, arguments: &[u64]) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend_from_slice(&number.to_le_bytes());
    data.extend_from_slice(&arch.to_le_bytes());
    data.extend_from_slice(&[0; 8]);
    for at in 0..6 {
        let argument = arguments.get(at).copied().unwrap_or(0);
        data.extend_from_slice(&argument.to_le_bytes());
    }
    data
}

/// As much of classic BPF as the filters use; an unknown instruction fails the test.
pub(crate) fn interpret(program: &[u8], data: &[u8]) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    for _ in 0..program.len() {
        let instruction: [u8; 8] = program[at * 8..][..8].try_into().unwrap();
        let [c0, c1, jt, jf, k @ ..] = instruction;
        let k = u32::from_le_bytes(k);
        at += 1;
        let jump = |yes: bool| usize::from(if yes { jt } else { jf });
        let code = u16::from_le_bytes([c0, c1]);
        match code {
            0x20 => {
                let word = data[k as usize..][..4].try_into().unwrap();
                accumulator = u32::from_le_bytes(word);
            }
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x06 => return k,
            _ => panic!("instruction {code:#x}"),
        }
    }
    panic!("the program does not end")
}
