/**
 * Breadth-first search over a small world: every order of every move, up to a depth. Histories that lead to the same state
 * count as one, so the first history found that breaks a law is a shortest one.
 */
import * as Cells from "../../src/admission/cells.ts"
import * as Amounts from "../../src/domain/amounts.ts"
import type { CostlyCall, Level } from "../../src/admission/flows.ts"
import { flowsOf } from "../support/queueFlows.ts"
import * as Laws from "./laws.ts"
import { type Code, type History, isCalm, type Play, replay, type Scope } from "./play.ts"

export type LawName = keyof typeof Laws.laws | "everybody is served"

export interface Found {
  readonly scope: string
  readonly states: number
  /** Histories that led to a state, known or new. */
  readonly histories: number
  readonly depth: number
  /** Whether every state of the depth was reached, within the bound on their number. */
  readonly isWhole: boolean
  readonly broken: { readonly law: LawName; readonly says: string; readonly history: History } | undefined
}

export interface Bounds {
  readonly depth: number
  /** @default as many as there are */
  readonly states?: number
}

export const search = (code: Code, scope: Scope, { depth, states = Infinity }: Bounds): Found => {
  const seen = new Set<string>()
  let frontier: Array<History> = [[]]
  let histories = 0
  let reached = 0
  const found = (broken: Found["broken"], isWhole: boolean): Found => ({
    scope: scope.name,
    states: seen.size,
    histories,
    depth: reached,
    isWhole,
    broken
  })
  for (; reached < depth && frontier.length > 0; reached++) {
    const next: Array<History> = []
    for (const history of frontier) {
      for (const move of replay(code, scope, history).moves()) {
        const longer = [...history, move]
        const play = replay(code, scope, longer)
        histories++
        const key = keyOf(play)
        if (seen.has(key)) continue
        seen.add(key)
        const broken = judge(code, play, longer)
        if (broken !== undefined || seen.size >= states) {
          reached++
          return found(broken, false)
        }
        next.push(longer)
      }
    }
    frontier = next
  }
  return found(undefined, true)
}

/** The first law that a state breaks. */
export const judge = (code: Code, play: Play, history: History): Found["broken"] => {
  for (const [law, says] of Object.entries(Laws.laws)) {
    const said = says(play)
    if (said !== undefined) return { law: law as LawName, says: said, history }
  }
  const said = Laws.isServed(replay(code, play.scope, history))
  return said === undefined ? undefined : { law: "everybody is served", says: said, history }
}

/** Describes a search, and how to play again what it found. */
export const describe = ({ broken, depth, histories, isWhole, scope, states }: Found): string => {
  const counts = `${scope}: ${states} states of ${histories} histories, ${isWhole ? "all" : "some"} of up to ${depth} moves`
  if (broken === undefined) return counts
  const moves = broken.history.map((move) => `  ${JSON.stringify(move)}`).join(",\n")
  return `${counts}\n${broken.law}: ${broken.says}\nreplay(library, scopes.${scope}, [\n${moves}\n])`
}

// -----------------------------------------------------------------------------
// What makes two states the same
// -----------------------------------------------------------------------------

const round = (value: number): number => Math.round(value * 1e6) / 1e6

/** The properties of the law that are times; they are compared relative to now. */
const times = new Set([
  "at",
  "fullAt",
  "until",
  "probedAt",
  "fence",
  "loweredAt",
  "rampAt",
  "distrustUntil",
  "dueAt",
  "since"
])

/** Everything that decides what happens next: times relative to now, and tags relative to virtual time. */
const keyOf = (play: Play): string => {
  const { calls, now, pool, scope, timers } = play
  const relative = (key: string, value: unknown): unknown => {
    if (typeof value !== "number") return value
    if (Math.abs(value) === Infinity) return String(value)
    return round(times.has(key) ? value - now : value)
  }
  const inside = pool as unknown as {
    readonly permits: unknown
    readonly timer: { readonly at: number } | undefined
    readonly queue: { readonly levels: Map<number, Level<CostlyCall>>; readonly size: number; readonly since: number }
  }
  const order = new Map(
    Array.from(inside.queue.levels.values())
      .flatMap((level) => flowsOf(level).map(({ rank }) => rank))
      .sort((a, b) => a - b)
      .map((rank, place) => [rank, place])
  )
  const queue = Array.from(inside.queue.levels.values())
    .map((level) => [
      level.priority,
      flowsOf(level)
        .map(({ group, name, owed, rank, start, weight }) => [
          group.parent?.name,
          name,
          group.weight,
          weight,
          round(start + group.refunded - group.virtual),
          round(owed),
          order.get(rank)
        ])
        .sort()
    ])
    .sort()
  const lines = play.inLine.map(({ agent, charge, priority }) => [agent, priority, charge.tokens, charge.requests])
  const open = calls
    .filter(({ endedAt, held }) => held !== undefined && endedAt === undefined)
    .map(({ charge, grantedAt, held, waiter }) => {
      const { cost, moved, rank, grant, weight } = held!
      const corrects = rank >= inside.queue.since
      return [
        held!.agent,
        charge.tokens,
        charge.requests,
        grantedAt! - now,
        waiter === undefined,
        corrects ? [moved.map(round), round(cost / weight)] : 0,
        isCalm(scope) ? 0 : grant
      ]
    })
  const { caps } = pool.law
  const law = isCalm(scope)
    ? Amounts.mapDimensions(caps, ({ at, cells, highs, level, rule }) => ({
        level: round(Math.min(Math.max(level, rule.capacity), level + rule.rate * (now - at))),
        cells: Cells.toList(cells).map(({ amount, index }) => [
          amount,
          round(index - (now * 60) / (rule.window?.millis ?? 1))
        ]),
        highs
      }))
    : pool.law
  const state = {
    law,
    queue,
    lines,
    open,
    left: scope.calls - calls.length,
    setting: scope.settings.indexOf(play.setting),
    permits: inside.permits,
    timers: timers.map(({ at }) => round(at - now)).sort(),
    wakeAt: round((inside.timer?.at ?? Infinity) - now),
    paused: Math.max(0, play.pausedUntil - now),
    isClosed: play.closedIn < Infinity
  }
  return JSON.stringify(state, relative)
}
