/** Law 14 over random histories: more accounts than a budget may have pools, some of them in use, paused or limited by the user. */
import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import type * as Budget from "floodgate/Budget"
import type { Make } from "./history.ts"
import * as Ledger from "./ledger.ts"
import { mulberry } from "./random.ts"

const maxPools = 5
const accounts = Array.from({ length: 15 }, (_, n) => `account-${n}`)
const limit = { burst: 1_000, rate: 0.1 }
const limits = { tokens: { perSecond: 100, burst: 1_000 } }

interface Call {
  readonly account: string
  readonly tokens: number
  readonly scope: Scope.Closeable
  fiber: Fiber.Fiber<Budget.Reservation, Budget.BudgetError>
  reservation: Budget.Reservation | undefined
  admittedAt: number
}

/** Plays a history and checks what callers see: refusals, the pools that exist, and what each admitted. */
export const run = (make: Make, seed: number, steps: number): Effect.Effect<{ readonly refused: number }> =>
  Effect.gen(function* () {
    const random = mulberry(seed)
    const below = (n: number) => Math.floor(random() * n)
    const pick = <A>(of: ReadonlyArray<A>): A => of[below(of.length)]!
    const budget = yield* make({ limits, maxPools })
    const flows = new Map(accounts.map((account) => [account, [] as Array<Ledger.Movement>]))
    const pausedUntil = new Map<string, number>()
    const resized = new Set<string>()
    const live = new Set<Call>()
    let refused = 0

    /** The accounts whose pools must be kept. */
    const needed = (now: number): ReadonlySet<string> => {
      const paused = [...pausedUntil].filter(([, until]) => until > now).map(([account]) => account)
      return new Set([...paused, ...resized, ...Array.from(live, ({ account }) => account)])
    }

    const begin = Effect.fnUntraced(function* (account: string) {
      const scope = yield* Scope.make()
      const tokens = 1 + below(1_000)
      const waits = random() < 0.4 ? {} : { maxWait: below(2_000) }
      const before = needed(yield* Clock.currentTimeMillis)
      const reserve = Scope.provide(budget.reserve({ tokens }, { account, ...waits }), scope)
      const call: Call = { account, tokens, scope, fiber: undefined as never, reservation: undefined, admittedAt: NaN }
      const admitted = (reservation: Budget.Reservation) =>
        Effect.map(Clock.currentTimeMillis, (at) => {
          call.reservation = reservation
          call.admittedAt = at
          flows.get(account)!.push({ at, amount: tokens, admittedAt: undefined })
        })
      call.fiber = yield* Effect.forkChild(Effect.tap(reserve, admitted), { startImmediately: true })
      const exit = call.fiber.pollUnsafe()
      const error = exit !== undefined && Exit.isFailure(exit) ? Exit.findErrorOption(exit) : undefined
      if (error?._tag !== "Some") return void live.add(call)
      if (error.value.reason._tag !== "TooManyPools") return
      refused++
      const name = `seed ${seed}: ${account} was refused beside ${[...before].join(", ")}`
      assert.isFalse(before.has(account), name)
      assert.strictEqual(before.size, maxPools, name)
    })

    const end = Effect.fnUntraced(function* (call: Call) {
      live.delete(call)
      const { account, admittedAt, reservation, scope, tokens } = call
      if (reservation === undefined) yield* Fiber.interrupt(call.fiber)
      else {
        const used = pick([0, below(tokens), tokens])
        const at = yield* Clock.currentTimeMillis
        flows.get(account)!.push({ at, amount: used - tokens, admittedAt })
        yield* reservation.settle({ tokens: used }, pick(["success", "failure", "denied"]))
      }
      yield* Scope.close(scope, Exit.void)
    })

    const look = Effect.gen(function* () {
      const { pools } = yield* budget.status
      const names = Object.keys(pools).filter((name) => name !== "default")
      assert.isAtMost(names.length, maxPools, `seed ${seed}`)
      for (const account of needed(yield* Clock.currentTimeMillis)) {
        assert.include(names, account, `seed ${seed}: it is in use, paused or the user's`)
        const open = [...live].filter((call) => call.account === account && call.reservation !== undefined).length
        assert.strictEqual(pools[account]!.inFlight, open, `seed ${seed}: ${account}`)
      }
    })

    for (let step = 0; step < steps; step++) {
      const what = random()
      // Calls that were refused after a wait have ended.
      for (const call of live) {
        const exit = call.fiber.pollUnsafe()
        if (exit !== undefined && Exit.isFailure(exit)) live.delete(call)
      }
      const open = Object.keys((yield* budget.status).pools).filter((name) => name !== "default")
      if (what < 0.5) yield* begin(pick(accounts))
      else if (what < 0.85 && live.size > 0) yield* end(pick([...live]))
      else if (what < 0.9 && open.length > 0) {
        const account = pick(open)
        yield* budget.pause({ duration: 500, pool: account, reason: "rateLimit" })
        pausedUntil.set(account, (yield* Clock.currentTimeMillis) + 500)
      } else if (what < 0.91 && open.length > 0 && resized.size < 2) {
        const account = pick(open)
        yield* budget.resize({ pool: account, limits })
        resized.add(account)
      }
      yield* TestClock.adjust(pick([1, 1, 5, 20, 300]))
      yield* look
    }
    for (const call of live) yield* end(call)
    for (const [account, flow] of flows) assert.isUndefined(Ledger.overBucket(flow, limit), `seed ${seed}: ${account}`)
    return { refused }
  }).pipe(Effect.orDie, Effect.scoped, Effect.provide(TestClock.layer()))
