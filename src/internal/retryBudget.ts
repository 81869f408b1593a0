/**
 * The retry budget as a pure step: how many calls and retries there were within the last ten seconds, and whether one
 * more retry is within the share. Time is an argument.
 *
 * The scheme is Finagle's `RetryBudget` (https://finagle.github.io/blog/2016/02/08/retry-budgets/).
 */

/** What a budget allows: a share of calls, plus a floor. */
export interface Rule {
  readonly ratio: number
  readonly minPerSecond: number
}

/** What happened within one second. */
interface Cell {
  readonly second: number
  readonly calls: number
  readonly retries: number
}

/** The seconds that count, oldest first. At most ten. */
export type State = ReadonlyArray<Cell>

/** A call was made, or a retry asks to be let through. */
export type Event = "call" | "retry"

/** What a step decides, and the state after it. */
export interface Decision {
  readonly state: State
  readonly allowed: boolean
}

/** The number of seconds that count. */
export const windowSeconds = 10

/** `ratio * calls` may fall short of a whole number by the last bits of a double. */
const rounding = 1e-9

/** Nothing happened yet. */
export const empty: State = []

/** The seconds that still count at `second`. A clock that was set back makes those ahead of it count no more. */
const recent = (state: State, second: number): State =>
  state.every((cell) => cell.second > second - windowSeconds && cell.second <= second)
    ? state
    : state.filter((cell) => cell.second > second - windowSeconds && cell.second <= second)

const secondOf = (now: number): number => Math.floor(now / 1_000)

const balanceOf = (rule: Rule, state: State): number => {
  let calls = 0
  let retries = 0
  for (const cell of state) {
    calls += cell.calls
    retries += cell.retries
  }
  return rule.ratio * calls + rule.minPerSecond * windowSeconds - retries
}

/** How many retries are allowed at `now`, in milliseconds; a fraction is not a retry yet. */
export const balance = (rule: Rule, state: State, now: number): number => balanceOf(rule, recent(state, secondOf(now)))

const add = (state: State, second: number, calls: number, retries: number): State => {
  const last = state[state.length - 1]
  return last !== undefined && last.second === second
    ? [...state.slice(0, -1), { second, calls: last.calls + calls, retries: last.retries + retries }]
    : [...state, { second, calls, retries }]
}

/** Applies an event at `now`, in milliseconds. A retry that is not allowed leaves no trace. */
export const step = (rule: Rule, state: State, now: number, event: Event): Decision => {
  const second = secondOf(now)
  const current = recent(state, second)
  if (event === "call") return { state: add(current, second, 1, 0), allowed: true }
  return balanceOf(rule, current) >= 1 - rounding
    ? { state: add(current, second, 0, 1), allowed: true }
    : { state: current, allowed: false }
}
