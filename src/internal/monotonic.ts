/** The milliseconds of a clock's monotonic time: no step of the wall clock moves them. */
export const monotonicMillis =
  (clock: { readonly monotonicTimeNanosUnsafe: () => bigint }): (() => number) =>
  () =>
    Number(clock.monotonicTimeNanosUnsafe()) / 1e6
