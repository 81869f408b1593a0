/**
 * How much of a search a test does.
 *
 * `npm test` does a small part of each, so that it takes a few minutes on any machine. `npm run test:full` does all of it:
 * `npm run verify` and CI run that, too.
 */
export const isFull = process.env.FLOODGATE_TEST_SIZE === "full"

/** The first under `npm test`, the second under `npm run test:full`. */
export const sized = <A>(small: A, full: A): A => (isFull ? full : small)

/** Every so-manieth of a list under `npm test`, beginning with the first, and all of it under `npm run test:full`. */
export const some = <A>(list: ReadonlyArray<A>, every: number): ReadonlyArray<A> =>
  isFull ? list : list.filter((_, i) => i % every === 0)
