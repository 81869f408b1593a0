/**
 * How much of a long search a test runs.
 *
 * `npm test` runs a small part, so that it takes a few minutes on any machine. `npm run test:full` runs all of it, and so do
 * `npm run verify` and CI.
 */
export const isFull = process.env.FLOODGATE_TEST_SIZE === "full"

/** A size for `npm test`, and one for `npm run test:full`. */
export const sized = <A>(small: A, full: A): A => (isFull ? full : small)

/** In `npm test` the first of each `every` items of a list, in `npm run test:full` all of them. */
export const some = <A>(list: ReadonlyArray<A>, every: number): ReadonlyArray<A> =>
  isFull ? list : list.filter((_, i) => i % every === 0)
