/** Caps in dollars and long windows: for how many more agents they have room. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as PriceTable from "../domain/prices.ts"
import { ledgerOf, Purses, type Purse } from "../domain/spending/models.ts"
import type { RunningLedger } from "../money/ledger.ts"
import * as Windows from "../domain/spending/windows.ts"
import { counted, dollars } from "../domain/words.ts"
import type * as Forecast from "../Forecast.ts"
import { Governor, type WindowStatus } from "../Governor.ts"
import type { CapRoom } from "./models.ts"
import { allCallsOf } from "./subAgents.ts"

/** The work of the agents in question, and of those that run already. */
export interface SpendingQuestion {
  readonly model: string | undefined
  readonly account: string | undefined
  readonly pool: string
  /** @default the price of the model in the governor's table */
  readonly price?: PriceTable.Price | undefined
  readonly each: Forecast.Work
  readonly running: number
  /** How many of those use this pool, and with it the windows of its account. */
  readonly here: number
  /** The calls that each of those still makes. */
  readonly remaining: ReadonlyArray<Forecast.Call>
}

/** The caps in dollars and the long windows that limit the agents, and what was assumed. */
export interface FoundRoom {
  readonly caps: ReadonlyArray<CapRoom>
  readonly windows: ReadonlyArray<CapRoom>
  readonly price: PriceTable.Price | undefined
  readonly assumptions: ReadonlyArray<string>
}

/** An agent that reads from a cache has written there whatever is new. */
const costOf = (price: PriceTable.Price, calls: ReadonlyArray<Forecast.Call>): number => {
  const writes = calls.some(({ cacheReadTokens = 0 }) => cacheReadTokens > 0)
  return calls.reduce((sum, { cacheReadTokens, inputTokens, outputTokens }) => {
    const input = writes ? { inputTokens: 0, cacheCreationTokens: inputTokens, cacheReadTokens } : { inputTokens }
    return sum + PriceTable.cost(price, { ...input, outputTokens })
  }, 0)
}

/** The cost of all calls of an agent. */
export const costOfAgent = (price: PriceTable.Price, work: Forecast.Work): number => costOf(price, allCallsOf(work))

const untilText = (until: number | undefined): string =>
  until === undefined ? "" : ` until ${new Date(until).toISOString().slice(0, 16).replace("T", " ")} UTC`

const roomOf = (name: string, left: string, count: number): CapRoom => {
  const agents = Math.max(0, count)
  const enough = agents === 0 ? "too little for one agent" : `enough for ${counted(agents, "agent")} of this kind`
  return { name, agents, text: `${left}, ${enough}` }
}

/** The pool of a model usually has its name, and may have an account in front of it. */
const modelOf = ({ model, pool }: SpendingQuestion): string => model ?? pool.slice(pool.lastIndexOf("/") + 1)

/** For how many agents an amount is enough, after running agents have spent what they still need. */
type Enough = (left: number) => number

/** The room left in a cap. */
interface CapLeft extends Pick<Purse, "name"> {
  readonly left: number
  readonly until: number | undefined
}

/** The room left in the caps of purses. A purse need not have one. */
const capsLeft = Effect.fnUntraced(function* (purses: ReadonlyArray<Purse>) {
  const all = yield* Effect.forEach(purses, ({ name, status }) =>
    Effect.map(status, ({ left, until }): ReadonlyArray<CapLeft> => (left === undefined ? [] : [{ name, left, until }]))
  )
  return all.flat()
})

const inCap = ({ left, name, until }: CapLeft, enough: Enough | undefined): ReadonlyArray<CapRoom> => {
  // Without a price, it is only known whether the cap is used up.
  const agents = enough?.(left) ?? (left > 0 ? undefined : 0)
  if (agents === undefined) return []
  const text = `${dollars(Math.max(0, left))} of the cap "${name}" ${left > 0 ? "is" : "are"} left${untilText(until)}`
  return [roomOf(name, text, agents)]
}

const inWindow = (
  { dollars: size, isRejected, name, resetsAt, share = 1, used }: WindowStatus,
  enough: Enough | undefined
): ReadonlyArray<CapRoom> => {
  const left = isRejected ? 0 : Math.max(0, share - used)
  const ofRest = size === undefined ? undefined : enough?.(left * size)
  const agents = left === 0 ? 0 : ofRest
  if (agents === undefined) return []
  const text = `${Math.floor(1_000 * left) / 10} % of the account's window of ${name} ${left > 0 ? "is" : "are"} left${untilText(resetsAt)}`
  return [roomOf(`window of ${name}`, text, agents)]
}

/** The room that is left now. */
interface Left {
  readonly caps: ReadonlyArray<CapLeft>
  /** The windows of all accounts. */
  readonly windows: ReadonlyArray<WindowStatus>
  readonly prices: PriceTable.Table
}

/** Reads what is left of the caps that the asker pays from, and of the long windows. */
export const left: Effect.Effect<Left> = Effect.gen(function* () {
  const purses = yield* Purses
  const caps = yield* capsLeft(purses.filter((purse) => ledgerOf<RunningLedger>(purse).unit === "dollars"))
  const governor = Option.getOrUndefined(yield* Effect.serviceOption(Governor))
  return governor === undefined
    ? { caps, windows: [], prices: {} }
    : { caps, windows: yield* governor.windows, prices: governor.prices }
})

/** For how many agents the caps have room, and the windows of the account. */
export const find = ({ caps, prices, windows }: Left, question: SpendingQuestion): FoundRoom => {
  const model = modelOf(question)
  const own = windows.filter(
    (window) =>
      (window.account === question.account || question.account === undefined) && Windows.concerns(window, model)
  )
  const price = question.price ?? PriceTable.find(model, prices)
  if (caps.length === 0 && own.length === 0) return { caps: [], windows: [], price, assumptions: [] }
  const { each, here, remaining, running } = question
  const cost = price && costOfAgent(price, each)
  const costOfRest = price === undefined ? 0 : costOf(price, remaining)
  const enoughAfter = (others: number): Enough | undefined =>
    cost === undefined ? undefined : (left) => (cost === 0 ? Infinity : Math.floor((left - others * costOfRest) / cost))
  const isUnpriced = price === undefined && caps.length > 0
  return {
    caps: caps.flatMap((cap) => inCap(cap, enoughAfter(running))),
    windows: own.flatMap((window) => inWindow(window, enoughAfter(here))),
    price,
    assumptions: isUnpriced
      ? [`${modelOf(question)} has no price, so caps in dollars are not counted: state the model`]
      : []
  }
}
