;; The CRC-32 of standard input, written to standard output as eight hexadecimal digits and a newline.
;;
;; A command module of WASI preview 1: it exports its memory and `_start`, and imports what it needs of the system.
;; Memory: 0 a vector of one buffer (address, length), 8 the count that the system gives back, 16 the digits of the
;; answer, 64 the letters of hexadecimal, 1024 and on the table of remainders, 4096 and on what was read.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "0123456789abcdef")

  ;; What 8 bits leave when they are divided by the polynomial, for each of the 256 bytes.
  (func $prepare
    (local $byte i32) (local $rest i32) (local $bit i32)
    (loop $bytes
      (local.set $rest (local.get $byte))
      (local.set $bit (i32.const 8))
      (loop $bits
        (local.set $rest
          (i32.xor
            (i32.shr_u (local.get $rest) (i32.const 1))
            (i32.and
              (i32.const 0xedb88320)
              (i32.sub (i32.const 0) (i32.and (local.get $rest) (i32.const 1))))))
        (local.set $bit (i32.sub (local.get $bit) (i32.const 1)))
        (br_if $bits (local.get $bit)))
      (i32.store
        (i32.add (i32.const 1024) (i32.shl (local.get $byte) (i32.const 2)))
        (local.get $rest))
      (local.set $byte (i32.add (local.get $byte) (i32.const 1)))
      (br_if $bytes (i32.lt_u (local.get $byte) (i32.const 256)))))

  ;; Fills the buffer; how many bytes came, 0 at the end.
  (func $more (result i32)
    (i32.store (i32.const 0) (i32.const 4096))
    (i32.store (i32.const 4) (i32.const 65536))
    (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $exit (i32.const 1))))
    (i32.load (i32.const 8)))

  (func (export "_start")
    (local $sum i32) (local $at i32) (local $end i32) (local $digit i32)
    (call $prepare)
    (local.set $sum (i32.const -1))
    (block $done
      (loop $parts
        (local.set $end (call $more))
        (br_if $done (i32.eqz (local.get $end)))
        (local.set $at (i32.const 4096))
        (local.set $end (i32.add (local.get $end) (local.get $at)))
        (loop $bytes
          (local.set $sum
            (i32.xor
              (i32.shr_u (local.get $sum) (i32.const 8))
              (i32.load
                (i32.add
                  (i32.const 1024)
                  (i32.shl
                    (i32.and
                      (i32.xor (local.get $sum) (i32.load8_u (local.get $at)))
                      (i32.const 255))
                    (i32.const 2))))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $bytes (i32.lt_u (local.get $at) (local.get $end))))
        (br $parts)))
    (local.set $sum (i32.xor (local.get $sum) (i32.const -1)))
    ;; Eight digits, the last one first.
    (local.set $digit (i32.const 8))
    (loop $digits
      (local.set $digit (i32.sub (local.get $digit) (i32.const 1)))
      (i32.store8
        (i32.add (i32.const 16) (local.get $digit))
        (i32.load8_u (i32.add (i32.const 64) (i32.and (local.get $sum) (i32.const 15)))))
      (local.set $sum (i32.shr_u (local.get $sum) (i32.const 4)))
      (br_if $digits (local.get $digit)))
    (i32.store8 (i32.const 24) (i32.const 10))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 9))
    (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $exit (i32.const 1))))))
