// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !purego

#include "textflag.h"

// The constants of FIPS 180-4, section 4.2.2.
DATA k<>+0x00(SB)/8, $0x71374491428a2f98
DATA k<>+0x08(SB)/8, $0xe9b5dba5b5c0fbcf
DATA k<>+0x10(SB)/8, $0x59f111f13956c25b
DATA k<>+0x18(SB)/8, $0xab1c5ed5923f82a4
DATA k<>+0x20(SB)/8, $0x12835b01d807aa98
DATA k<>+0x28(SB)/8, $0x550c7dc3243185be
DATA k<>+0x30(SB)/8, $0x80deb1fe72be5d74
DATA k<>+0x38(SB)/8, $0xc19bf1749bdc06a7
DATA k<>+0x40(SB)/8, $0xefbe4786e49b69c1
DATA k<>+0x48(SB)/8, $0x240ca1cc0fc19dc6
DATA k<>+0x50(SB)/8, $0x4a7484aa2de92c6f
DATA k<>+0x58(SB)/8, $0x76f988da5cb0a9dc
DATA k<>+0x60(SB)/8, $0xa831c66d983e5152
DATA k<>+0x68(SB)/8, $0xbf597fc7b00327c8
DATA k<>+0x70(SB)/8, $0xd5a79147c6e00bf3
DATA k<>+0x78(SB)/8, $0x1429296706ca6351
DATA k<>+0x80(SB)/8, $0x2e1b213827b70a85
DATA k<>+0x88(SB)/8, $0x53380d134d2c6dfc
DATA k<>+0x90(SB)/8, $0x766a0abb650a7354
DATA k<>+0x98(SB)/8, $0x92722c8581c2c92e
DATA k<>+0xa0(SB)/8, $0xa81a664ba2bfe8a1
DATA k<>+0xa8(SB)/8, $0xc76c51a3c24b8b70
DATA k<>+0xb0(SB)/8, $0xd6990624d192e819
DATA k<>+0xb8(SB)/8, $0x106aa070f40e3585
DATA k<>+0xc0(SB)/8, $0x1e376c0819a4c116
DATA k<>+0xc8(SB)/8, $0x34b0bcb52748774c
DATA k<>+0xd0(SB)/8, $0x4ed8aa4a391c0cb3
DATA k<>+0xd8(SB)/8, $0x682e6ff35b9cca4f
DATA k<>+0xe0(SB)/8, $0x78a5636f748f82ee
DATA k<>+0xe8(SB)/8, $0x8cc7020884c87814
DATA k<>+0xf0(SB)/8, $0xa4506ceb90befffa
DATA k<>+0xf8(SB)/8, $0xc67178f2bef9a3f7
GLOBL k<>(SB), NOPTR|RODATA, $256

// Words are big-endian in the message.
DATA swap<>+0x00(SB)/8, $0x0405060700010203
DATA swap<>+0x08(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), NOPTR|RODATA, $16

#define WK X0
#define SWAP X15

// Turn a..h into the order of the instructions, s0 = a b e f and s1 = c d g h from
// the highest word down, and back.
#define LOADSTATE(ptr, s0, s1, t) \
	MOVOU 0(ptr), t; \
	MOVOU 16(ptr), s1; \
	PSHUFD $0xb1, t, t; \
	PSHUFD $0x1b, s1, s1; \
	MOVO t, s0; \
	PALIGNR $8, s1, s0; \
	PBLENDW $0xf0, t, s1

#define STORESTATE(ptr, s0, s1, t) \
	PSHUFD $0x1b, s0, s0; \
	PSHUFD $0xb1, s1, s1; \
	MOVO s0, t; \
	PBLENDW $0xf0, s1, s0; \
	PALIGNR $8, t, s1; \
	MOVOU s0, 0(ptr); \
	MOVOU s1, 16(ptr)

#define SAVE(off, s0, s1) \
	MOVOU s0, off+0(SP); \
	MOVOU s1, off+16(SP)

#define ADDSAVED(off, s0, s1, t) \
	MOVOU off+0(SP), t; \
	PADDL t, s0; \
	MOVOU off+16(SP), t; \
	PADDL t, s1

#define LOAD(ptr, g, m) \
	MOVOU (g*16)(ptr), m; \
	PSHUFB SWAP, m

// Four rounds with the words in m.
#define ROUNDS(g, m, s0, s1) \
	MOVO m, WK; \
	PADDL (g*16)(AX), WK; \
	SHA256RNDS2 WK, s0, s1; \
	PSHUFD $0x0e, WK, WK; \
	SHA256RNDS2 WK, s1, s0

// The words of the next four rounds: next has had SHA256MSG1.
#define SCHEDULE(cur, prev, next, t) \
	MOVO cur, t; \
	PALIGNR $4, prev, t; \
	PADDL t, next; \
	SHA256MSG2 cur, next

#define A0 X1
#define A1 X2
#define AM0 X3
#define AM1 X4
#define AM2 X5
#define AM3 X6
#define AT X7
#define B0 X8
#define B1 X9
#define BM0 X10
#define BM1 X11
#define BM2 X12
#define BM3 X13
#define BT X14

#define STEP(g, ac, ap, an, bc, bp, bn) \
	ROUNDS(g, ac, A0, A1); \
	ROUNDS(g, bc, B0, B1); \
	SCHEDULE(ac, ap, an, AT); \
	SHA256MSG1 ac, ap; \
	SCHEDULE(bc, bp, bn, BT); \
	SHA256MSG1 bc, bp

#define LASTSTEP(g, ac, ap, an, bc, bp, bn) \
	ROUNDS(g, ac, A0, A1); \
	ROUNDS(g, bc, B0, B1); \
	SCHEDULE(ac, ap, an, AT); \
	SCHEDULE(bc, bp, bn, BT)

// func hasSHA() bool
TEXT ·hasSHA(SB), NOSPLIT, $0-1
	XORL AX, AX
	XORL CX, CX
	CPUID
	MOVB $0, ret+0(FP)
	CMPL AX, $7
	JLT no
	MOVL $7, AX
	XORL CX, CX
	CPUID
	SHRL $29, BX
	ANDL $1, BX
	MOVB BX, ret+0(FP)

no:
	RET

// func isIntel() bool
TEXT ·isIntel(SB), NOSPLIT, $0-1
	XORL AX, AX
	XORL CX, CX
	CPUID
	CMPL BX, $0x756e6547 // Genu
	SETEQ ret+0(FP)
	RET

// func blocksNarrow(a, b *[8]uint32, p, q *byte, n int)
TEXT ·blocksNarrow(SB), NOSPLIT, $64-40
	MOVQ a+0(FP), R8
	MOVQ b+8(FP), R9
	MOVQ p+16(FP), DI
	MOVQ q+24(FP), SI
	MOVQ n+32(FP), CX
	LEAQ k<>(SB), AX
	MOVOU swap<>(SB), SWAP
	LOADSTATE(R8, A0, A1, AT)
	LOADSTATE(R9, B0, B1, BT)
	TESTQ CX, CX
	JZ done

loop:
	SAVE(0, A0, A1)
	SAVE(32, B0, B1)
	LOAD(DI, 0, AM0)
	LOAD(SI, 0, BM0)
	ROUNDS(0, AM0, A0, A1)
	ROUNDS(0, BM0, B0, B1)
	LOAD(DI, 1, AM1)
	LOAD(SI, 1, BM1)
	ROUNDS(1, AM1, A0, A1)
	ROUNDS(1, BM1, B0, B1)
	SHA256MSG1 AM1, AM0
	SHA256MSG1 BM1, BM0
	LOAD(DI, 2, AM2)
	LOAD(SI, 2, BM2)
	ROUNDS(2, AM2, A0, A1)
	ROUNDS(2, BM2, B0, B1)
	SHA256MSG1 AM2, AM1
	SHA256MSG1 BM2, BM1
	LOAD(DI, 3, AM3)
	LOAD(SI, 3, BM3)
	STEP(3, AM3, AM2, AM0, BM3, BM2, BM0)
	STEP(4, AM0, AM3, AM1, BM0, BM3, BM1)
	STEP(5, AM1, AM0, AM2, BM1, BM0, BM2)
	STEP(6, AM2, AM1, AM3, BM2, BM1, BM3)
	STEP(7, AM3, AM2, AM0, BM3, BM2, BM0)
	STEP(8, AM0, AM3, AM1, BM0, BM3, BM1)
	STEP(9, AM1, AM0, AM2, BM1, BM0, BM2)
	STEP(10, AM2, AM1, AM3, BM2, BM1, BM3)
	STEP(11, AM3, AM2, AM0, BM3, BM2, BM0)
	STEP(12, AM0, AM3, AM1, BM0, BM3, BM1)
	LASTSTEP(13, AM1, AM0, AM2, BM1, BM0, BM2)
	LASTSTEP(14, AM2, AM1, AM3, BM2, BM1, BM3)
	ROUNDS(15, AM3, A0, A1)
	ROUNDS(15, BM3, B0, B1)
	ADDSAVED(0, A0, A1, AT)
	ADDSAVED(32, B0, B1, BT)
	ADDQ $64, DI
	ADDQ $64, SI
	DECQ CX
	JNZ loop

done:
	STORESTATE(R8, A0, A1, AT)
	STORESTATE(R9, B0, B1, BT)
	RET

// The same without SHA256MSG1 and SHA256MSG2, which take the time of a port that
// SHA256RNDS2 needs. The words come from instructions of other ports, those of a in the
// lower half of a register and those of b in the upper one, a block ahead of the rounds.
// Registers from 16 on leave the upper halves of the others clean, as they have to be
// beside SHA256RNDS2, an instruction of SSE.

#define T0 Y16
#define T1 Y17
#define T2 Y18
#define T3 Y19
#define M0 Y20
#define M1 Y21
#define M2 Y22
#define M3 Y23
#define SWAPS Y24

// Rounds of group g, whose words and constants are in the frame: two of each instruction
// take the lower half of what is in WK.
#define ROUNDSAT(g) \
	MOVOU (g*32)(SP), WK; \
	SHA256RNDS2 WK, A0, A1; \
	MOVOU (g*32+16)(SP), WK; \
	SHA256RNDS2 WK, B0, B1; \
	MOVQ (g*32+8)(SP), WK; \
	SHA256RNDS2 WK, A1, A0; \
	MOVQ (g*32+24)(SP), WK; \
	SHA256RNDS2 WK, B1, B0

// What is in m goes to the frame, with the constants.
#define KEEP(g, m) \
	VBROADCASTI32X4 (g*16)(AX), T1; \
	VPADDD m, T1, T1; \
	VMOVDQU32 T1, (g*32)(SP)

#define FETCH(g, x, m) \
	VMOVDQU32 (g*16)(DI), x; \
	VINSERTI32X4 $1, (g*16)(SI), m, m; \
	VPSHUFB SWAPS, m, m; \
	KEEP(g, m)

// T0 becomes its own sigma: two rotations and a shift (FIPS 180-4, section 4.1.2).
#define SIGMA(r1, r2, s) \
	VPRORD $r1, T0, T2; \
	VPRORD $r2, T0, T3; \
	VPSRLD $s, T0, T0; \
	VPTERNLOGD $0x96, T2, T3, T0

// The next four words take the place of the oldest, m. The upper two of them need the
// lower two.
#define EXTEND(g, m, n, o, p) \
	VPALIGNR $4, m, n, T0; \
	VPALIGNR $4, o, p, T1; \
	VPADDD T1, m, m; \
	SIGMA(7, 18, 3); \
	VPADDD T0, m, m; \
	VPSRLDQ $8, p, T0; \
	SIGMA(17, 19, 10); \
	VPADDD T0, m, m; \
	VPSLLDQ $8, m, T0; \
	SIGMA(17, 19, 10); \
	VPADDD T0, m, m; \
	KEEP(g, m)

// func blocksWide(a, b *[8]uint32, p, q *byte, n int)
TEXT ·blocksWide(SB), NOSPLIT, $512-40
	MOVQ a+0(FP), R8
	MOVQ b+8(FP), R9
	MOVQ p+16(FP), DI
	MOVQ q+24(FP), SI
	MOVQ n+32(FP), CX
	TESTQ CX, CX
	JZ none
	LEAQ k<>(SB), AX
	VBROADCASTI32X4 swap<>(SB), SWAPS
	LOADSTATE(R8, A0, A1, AT)
	LOADSTATE(R9, B0, B1, BT)
	XORL DX, DX

	FETCH(0, X20, M0)
	FETCH(1, X21, M1)
	FETCH(2, X22, M2)
	FETCH(3, X23, M3)
	EXTEND(4, M0, M1, M2, M3)
	EXTEND(5, M1, M2, M3, M0)
	EXTEND(6, M2, M3, M0, M1)
	EXTEND(7, M3, M0, M1, M2)
	EXTEND(8, M0, M1, M2, M3)
	EXTEND(9, M1, M2, M3, M0)
	EXTEND(10, M2, M3, M0, M1)
	EXTEND(11, M3, M0, M1, M2)
	EXTEND(12, M0, M1, M2, M3)
	EXTEND(13, M1, M2, M3, M0)
	EXTEND(14, M2, M3, M0, M1)
	EXTEND(15, M3, M0, M1, M2)

each:
	MOVO A0, X10
	MOVO A1, X11
	MOVO B0, X12
	MOVO B1, X13
	// The words of the last block are made twice: there is none after it.
	MOVL $64, R10
	CMPQ CX, $1
	CMOVQEQ DX, R10
	ADDQ R10, DI
	ADDQ R10, SI

	ROUNDSAT(0)
	FETCH(0, X20, M0)
	ROUNDSAT(1)
	FETCH(1, X21, M1)
	ROUNDSAT(2)
	FETCH(2, X22, M2)
	ROUNDSAT(3)
	FETCH(3, X23, M3)
	ROUNDSAT(4)
	EXTEND(4, M0, M1, M2, M3)
	ROUNDSAT(5)
	EXTEND(5, M1, M2, M3, M0)
	ROUNDSAT(6)
	EXTEND(6, M2, M3, M0, M1)
	ROUNDSAT(7)
	EXTEND(7, M3, M0, M1, M2)
	ROUNDSAT(8)
	EXTEND(8, M0, M1, M2, M3)
	ROUNDSAT(9)
	EXTEND(9, M1, M2, M3, M0)
	ROUNDSAT(10)
	EXTEND(10, M2, M3, M0, M1)
	ROUNDSAT(11)
	EXTEND(11, M3, M0, M1, M2)
	ROUNDSAT(12)
	EXTEND(12, M0, M1, M2, M3)
	ROUNDSAT(13)
	EXTEND(13, M1, M2, M3, M0)
	ROUNDSAT(14)
	EXTEND(14, M2, M3, M0, M1)
	ROUNDSAT(15)
	EXTEND(15, M3, M0, M1, M2)

	PADDL X10, A0
	PADDL X11, A1
	PADDL X12, B0
	PADDL X13, B1
	DECQ CX
	JNZ each

	STORESTATE(R8, A0, A1, AT)
	STORESTATE(R9, B0, B1, BT)

none:
	RET
