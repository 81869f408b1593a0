/**
 * The contract of a `BudgetStore`, as checks that any test framework can run.
 *
 * A store has two operations, and a budget is correct if both do what their documentation says. The checks use a store like
 * several processes, each with a connection of its own. They run in real time, for about a second in all.
 *
 * **Example** (a store in memory keeps the contract)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import type * as BudgetStore from "floodgate/BudgetStore"
 * import { StoreContract } from "floodgate/testing"
 *
 * const values = new Map<string, BudgetStore.Stored>()
 * const store: BudgetStore.Store = {
 *   read: (key) => Effect.sync(() => values.get(key)),
 *   swap: (key, expected, next) =>
 *     Effect.sync(() => {
 *       if (values.get(key)?.version === expected) values.set(key, next)
 *       return values.get(key)
 *     })
 * }
 *
 * for (const check of StoreContract.checks) {
 *   await Effect.runPromise(check.run(Effect.succeed(store))) // fails with ContractBroken where the store does not keep it
 * }
 * StoreContract.checks.length // => 15
 * ```
 *
 * @stability unstable
 * @since 0.2.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Store, StoreError, Stored } from "../BudgetStore.ts"

/**
 * The store breaks the contract.
 *
 * @stability unstable
 * @category errors
 * @since 0.1.0
 */
export class ContractBroken extends Schema.TaggedError<ContractBroken>("floodgate/testing/ContractBroken")(
  "ContractBroken",
  { check: Schema.String, expected: Schema.String, seen: Schema.String }
) {
  override get message(): string {
    return `A store that ${this.check}: expected ${this.expected}, saw ${this.seen}`
  }
}

/** Connects one process to the store. Every connection sees what another one stores. The scope closes when the process ends. */
type Connect = Effect.Effect<Store, StoreError, Scope.Scope>

interface CheckTools {
  readonly connect: Connect
  /** An unused key. */
  readonly key: string
  readonly expect: (holds: boolean, expected: string, seen: unknown) => Effect.Effect<void, ContractBroken>
  /** Fails unless the store holds the wanted value. */
  readonly sees: (
    store: Store,
    wanted: Stored | undefined,
    key?: string
  ) => Effect.Effect<void, ContractBroken | StoreError>
  /** Swaps, and fails unless the swap succeeds. */
  readonly put: (
    store: Store,
    expected: Stored | undefined,
    next: Stored,
    options?: { readonly key?: string; readonly keepMillis?: number }
  ) => Effect.Effect<void, ContractBroken | StoreError>
}

type CheckBody = (tools: CheckTools) => Effect.Effect<void, ContractBroken | StoreError, Scope.Scope>

/** The timeout of one check. */
const maxMillis = 20_000
/** How far the clocks of stores may differ from ours, in milliseconds. */
const ageTolerance = 100
const hour = 3_600_000
const month = 30 * 24 * hour

const stored = (version: string, value: string = `value of ${version}`): Stored => ({ version, value })
const isSame = (a: Stored | undefined, b: Stored | undefined): boolean =>
  a?.version === b?.version && a?.value === b?.value
const shown = (seen: unknown): string => (JSON.stringify(seen) ?? String(seen)).slice(0, 200)

/** A long value that repeats its version, so that a reader can detect a torn one. */
const wide = (version: string): Stored => stored(version, version.repeat(2_000))

const bodies: Readonly<Record<string, CheckBody>> = {
  "finds nothing where nothing was stored": Effect.fnUntraced(function* ({ connect, sees }) {
    yield* sees(yield* connect, undefined)
  }),
  "stores where nothing is": Effect.fnUntraced(function* ({ connect, put, sees }) {
    const store = yield* connect
    yield* put(store, undefined, stored("a"))
    yield* sees(store, stored("a"))
  }),
  "replaces the version that is expected": Effect.fnUntraced(function* ({ connect, put, sees }) {
    const store = yield* connect
    yield* put(store, undefined, stored("a"))
    yield* put(store, stored("a"), stored("b"))
    yield* sees(store, stored("b"))
  }),
  "changes nothing where another version is stored, and says which": Effect.fnUntraced(function* (tools) {
    const { connect, expect, key, put, sees } = tools
    const store = yield* connect
    yield* put(store, undefined, stored("a"))
    for (const expected of [undefined, "b", "A", ""]) {
      const seen = yield* store.swap(key, expected, stored("c"), hour)
      yield* expect(isSame(seen, stored("a")), "what is stored", seen)
      yield* sees(store, stored("a"))
    }
  }),
  "changes nothing where something is expected and nothing is stored": Effect.fnUntraced(function* (tools) {
    const { connect, expect, key, sees } = tools
    const store = yield* connect
    const seen = yield* store.swap(key, "a", stored("b"), hour)
    yield* expect(seen === undefined, "nothing", seen)
    yield* sees(store, undefined)
  }),
  "shows to every process at once what one of them stored": Effect.fnUntraced(function* ({ connect, put, sees }) {
    const processes = [yield* connect, yield* connect] as const
    let last: Stored | undefined
    for (let n = 0; n < 20; n++) {
      const next = stored(`v${n}`)
      yield* sees(processes[1], last)
      yield* put(processes[n % 2]!, last, next)
      yield* sees(processes[0], next)
      yield* sees(processes[1], next)
      last = next
    }
  }),
  "lets one of the swaps win that come at the same time": Effect.fnUntraced(function* ({ connect, expect, key }) {
    const processes = yield* Effect.all(Array.from({ length: 4 }, () => connect))
    for (let round = 0, before: string | undefined; round < 10; round++) {
      const versions = Array.from({ length: 12 }, (_, n) => `${round}.${n}`)
      const seen = yield* Effect.forEach(
        versions,
        (version, n) => processes[n % 4]!.swap(key, before, stored(version), hour),
        { concurrency: "unbounded" }
      )
      const winner = seen[0]!
      const haveWon = versions.filter((version, n) => seen[n]?.version === version)
      yield* expect(haveWon.length === 1, "one of twelve to win", haveWon)
      yield* expect(
        seen.every((each) => isSame(each, stored(haveWon[0]!))),
        "all to hear who won",
        seen
      )
      before = winner.version
    }
  }),
  "loses no change of several processes that each count on": Effect.fnUntraced(function* ({ connect, expect, key }) {
    const each = 15
    const count = Effect.fnUntraced(function* (store: Store, name: string) {
      let done = 0
      let before = yield* store.read(key)
      for (let turn = 0; done < each && turn < 100 * each; turn++) {
        const next = stored(`${name}.${turn}`, String(Number(before?.value ?? 0) + 1))
        const now = yield* store.swap(key, before?.version, next, hour)
        if (now?.version === next.version) done++
        before = now
      }
    })
    const names = ["a", "b", "c", "d"]
    yield* Effect.forEach(names, (name) => Effect.flatMap(connect, (store) => count(store, name)), {
      concurrency: "unbounded"
    })
    const seen = yield* Effect.flatMap(connect, (store) => store.read(key))
    yield* expect(seen?.value === String(names.length * each), `a count of ${names.length * each}`, seen)
  }),
  "never shows a version with the value of another": Effect.fnUntraced(function* ({ connect, expect, key, put }) {
    const writer = yield* connect
    const reader = yield* connect
    const writes = yield* Effect.forkChild(
      Effect.gen(function* () {
        for (let n = 0, before: Stored | undefined; n < 60; n++) {
          yield* put(writer, before, wide(`v${n}`))
          before = wide(`v${n}`)
        }
      })
    )
    while (writes.pollUnsafe() === undefined) {
      const seen = yield* reader.read(key)
      yield* expect(seen === undefined || isSame(seen, wide(seen.version)), "a whole value", seen)
      yield* Effect.yieldNow
    }
    yield* Fiber.join(writes)
  }),
  "keeps texts as they are: any characters, and 64 KB": Effect.fnUntraced(function* ({ connect, put, sees }) {
    const one = yield* connect
    const other = yield* connect
    const texts = ['{"a":1}', "\"'`\\%s$1", " \n\r\n\t", "\u0001\u007f", "äß€漢字🜁\u202e", "", "x€🜁".repeat(8_192)]
    let last: Stored | undefined
    for (const [n, text] of texts.entries()) {
      yield* put(one, last, stored(`v${n}`, text))
      last = stored(`v${n}`, text)
      yield* sees(other, last)
    }
  }),
  "keeps keys apart, whatever characters they have": Effect.fnUntraced(function* ({ connect, key, put, sees }) {
    const store = yield* connect
    const names = ["a", "A", "a ", "a/b", "a/./b", "a%2Fb", "a:b", "../a", ".", "*", "?", "{a}", "a\nb", "ä", "'; --"]
    const keys = [...names, "a".repeat(200), `${"a".repeat(199)}b`].map((name) => `${key}:${name}`)
    for (const each of [...keys, "__proto__", "constructor"]) {
      // The last two keys may hold values of an earlier run.
      yield* put(store, yield* store.read(each), stored(`v of ${key}`, each), { key: each })
    }
    for (const each of [...keys, "__proto__", "constructor"]) yield* sees(store, stored(`v of ${key}`, each), each)
    yield* put(store, stored(`v of ${key}`), stored("other"), { key: keys[0]! })
    for (const each of keys.slice(1)) yield* sees(store, stored(`v of ${key}`, each), each)
  }),
  "keeps a value for the time of its last swap, when its process has ended, too": Effect.fnUntraced(function* (tools) {
    const { connect, key, put, sees } = tools
    yield* Effect.scoped(
      Effect.flatMap(connect, (store) =>
        Effect.andThen(
          put(store, undefined, stored("a"), { keepMillis: 150 }),
          put(store, stored("a"), stored("b"), { keepMillis: month })
        )
      )
    )
    yield* Effect.sleep(400)
    yield* sees(yield* connect, stored("b"), key)
  }),
  "tells how old a value is, if it tells that at all": Effect.fnUntraced(function* ({ connect, expect, key, put }) {
    const store = yield* connect
    const isRight = Effect.fnUntraced(function* (from: number, to: number, seen: Stored | undefined) {
      const now = yield* Clock.currentTimeMillis
      const [min, max] = [now - to - ageTolerance, now - from + ageTolerance]
      const age = seen?.ageMillis
      yield* expect(age === undefined || (age >= min && age <= max), `an age of ${min} to ${max} ms`, age)
    })
    for (let n = 0, before: Stored | undefined; n < 2; n++) {
      const from = yield* Clock.currentTimeMillis
      yield* put(store, before, stored(`v${n}`))
      const to = yield* Clock.currentTimeMillis
      before = stored(`v${n}`)
      yield* Effect.sleep(250)
      yield* isRight(from, to, yield* store.read(key))
      yield* isRight(from, to, yield* store.swap(key, "other", stored("new"), hour))
    }
  }),
  "tells the time in every reply that has a value, if it tells it at all": Effect.fnUntraced(function* (tools) {
    const { connect, expect, key } = tools
    const store = yield* connect
    const replies = [
      yield* store.swap(key, undefined, stored("a"), hour),
      yield* store.read(key),
      yield* store.swap(key, "other", stored("b"), hour),
      yield* store.swap(key, "a", stored("b"), hour)
    ].map((reply) => reply?.utc)
    const times = replies.filter((utc) => utc !== undefined)
    yield* expect(times.length === 0 || times.length === replies.length, "no time, or one in each reply", replies)
    const isOrdered = times.every((utc, n) => Number.isFinite(utc) && utc >= (times[n - 1] ?? 0))
    yield* expect(isOrdered, "milliseconds that do not go back", replies)
  }),
  "holds the old value or the new one where a swap was interrupted, and goes on": Effect.fnUntraced(function* (tools) {
    const { connect, expect, key, put, sees } = tools
    const one = yield* connect
    const other = yield* connect
    let last = wide("first")
    yield* put(one, undefined, last)
    for (let n = 0; n < 12; n++) {
      const next = wide(`v${n}`)
      const swap = yield* Effect.forkChild(one.swap(key, last.version, next, hour), { startImmediately: true })
      for (let turn = 0; turn < n; turn++) yield* Effect.yieldNow
      yield* Fiber.interrupt(swap)
      const seen = yield* other.read(key)
      yield* expect(isSame(seen, last) || isSame(seen, next), "the old value or the new one", seen)
      // The interrupted write may still be under way, so either of the two may win.
      const after = wide(`w${n}`)
      const now = yield* one.swap(key, seen!.version, after, hour)
      yield* expect(isSame(now, after) || isSame(now, next), "the next value, or the one that was on its way", now)
      last = now!
      yield* sees(other, last)
    }
  })
}

const run = Effect.fnUntraced(function* (name: string, body: CheckBody, connect: Connect) {
  // A store may still hold values of an earlier run.
  const key = `contract ${yield* Random.nextInt}`
  const broken = (expected: string, seen: unknown) => new ContractBroken({ check: name, expected, seen: shown(seen) })
  const expect: CheckTools["expect"] = (holds, expected, seen) =>
    holds ? Effect.void : Effect.fail(broken(expected, seen))
  yield* body({
    connect,
    key,
    expect,
    sees: (store, wanted, at = key) =>
      Effect.flatMap(store.read(at), (seen) => expect(isSame(seen, wanted), `to read ${shown(wanted)}`, seen)),
    put: (store, expected, next, { key: at = key, keepMillis = hour } = {}) =>
      Effect.flatMap(store.swap(at, expected?.version, next, keepMillis), (seen) =>
        expect(isSame(seen, next), `a swap to ${shown(next)}`, seen)
      )
  }).pipe(
    Effect.scoped,
    Effect.timeoutOrElse({ duration: maxMillis, orElse: () => Effect.fail(broken("an end", "none")) })
  )
})

/**
 * All checks. The name of each completes "a store that ...", and `run` takes the effect that connects one process to the
 * store. A store that passes them on one machine must still keep its values in one place; for example, it must not read from
 * a replica that lags behind.
 *
 * **Example** (A store in memory)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import type { Store, Stored } from "floodgate/BudgetStore"
 * import { StoreContract } from "floodgate/testing"
 *
 * const values = new Map<string, Stored>()
 * const store: Store = {
 *   read: (key) => Effect.sync(() => values.get(key)),
 *   swap: (key, expected, next) =>
 *     Effect.sync(() => {
 *       if (values.get(key)?.version === expected) values.set(key, next)
 *       return values.get(key)
 *     })
 * }
 *
 * const check = StoreContract.checks.find(({ name }) => name === "stores where nothing is")!
 *
 * await Effect.runPromise(check.run(Effect.succeed(store))) // => undefined
 * ```
 *
 * @stability unstable
 * @category constructors
 * @since 0.1.0
 */
export const checks: ReadonlyArray<{
  readonly name: string
  readonly run: (
    connect: Effect.Effect<Store, StoreError, Scope.Scope>
  ) => Effect.Effect<void, ContractBroken | StoreError>
}> = Object.entries(bodies).map(([name, body]) => ({
  name,
  run: (connect) => run(name, body, connect)
}))
