/** Processes that share a store know from each other how long answers of a place take. */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Governor from "floodgate/Governor"
import { MapStore } from "../support/store.ts"

const names = ["a", "b"]

const call: Governor.Call = {
  model: "m",
  bytes: 400,
  inputTokens: 100,
  maxTokens: 100,
  places: { places: names.map((name) => ({ name, model: "m" })) }
}

/** A store that counts the exchanges of answers. */
class CountingStore implements BudgetStore.Store {
  readonly inner = new MapStore()
  readonly at: Record<string, number> = {}
  readonly read: BudgetStore.Store["read"] = (key) => this.counted(key, this.inner.read(key))
  readonly swap: BudgetStore.Store["swap"] = (key, ...more) => this.counted(key, this.inner.swap(key, ...more))
  /** How long a reply takes. */
  latency = 0
  private counted<A, E>(key: string, effect: Effect.Effect<A, E>): Effect.Effect<A, E> {
    if (!key.startsWith("answers:")) return effect
    this.at[key] = (this.at[key] ?? 0) + 1
    return Effect.delay(effect, this.latency)
  }
  /** How often all processes have exchanged the answers of each place. */
  get counts(): ReadonlyArray<number> {
    return Object.values(this.at)
  }
}

/** The governor of one more process, until its scope closes. */
const process = Effect.fnUntraced(function* (store: BudgetStore.Store) {
  const scope = yield* Scope.fork(yield* Scope.Scope)
  const live = Governor.layer().pipe(Layer.provideMerge(Budget.layer()), Layer.provide(BudgetStore.layer(store)))
  const context = yield* Scope.provide(Layer.build(Layer.fresh(live)), scope)
  return { governor: Context.get(context, Governor.Governor), dies: Scope.close(scope, Exit.void) }
})

/** Places that answer after so many milliseconds, and where calls went. */
const world = (millis: Record<string, number>) => {
  const sent: Array<string> = []
  const attempt = ({ place }: Governor.Ticket) =>
    Effect.suspend(() => {
      sent.push(place!)
      const answer = { value: undefined, actual: { inputTokens: 100, outputTokens: 100 } }
      return Effect.as(Effect.sleep(millis[place!]!), answer)
    })
  const calls = (governor: Governor.Governor["Service"], count: number, places?: ReadonlyArray<string>) =>
    Effect.forEach(
      Array.from({ length: count }, (_, n) => n),
      () => Effect.forkScoped(governor.run(call, attempt, { places }), { startImmediately: true })
    )
  const counted = (place: string): number => sent.filter((each) => each === place).length
  return { calls, counted, millis }
}

const stateOf = (governor: Governor.Governor["Service"], place: string) =>
  Effect.map(governor.places, (all) => all.find(({ pool }) => pool.startsWith(place)))

describe("the answers of places that processes share", () => {
  it.effect("keep a process away from a place that another has found slow", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const { calls, counted } = world({ a: 60_000, b: 2_000 })
      const [one, other] = [yield* process(store), yield* process(store)]
      // This one has called at both places before, and has heard of no answer.
      yield* calls(other.governor, 1, ["b"])
      for (let n = 0; n < 10; n++) {
        yield* calls(one.governor, 2)
        yield* TestClock.adjust("3 seconds")
      }
      const before = counted("a")
      yield* calls(other.governor, 1)
      yield* TestClock.adjust("2 seconds")
      yield* calls(other.governor, 8)
      yield* TestClock.adjust("3 seconds")
      assert.isAtMost(counted("a") - before, 1)
      assert.strictEqual((yield* stateOf(other.governor, "a"))?.state, "slow")
    }).pipe(Effect.scoped)
  )

  it.effect("tell how long answers take, and how much longer they take now", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const at = world({ a: 10_000, b: 12_000 })
      const [one, other] = [yield* process(store), yield* process(store)]
      const answerMillis = Effect.map(stateOf(other.governor, "a"), (state) => state?.answerMillis)
      yield* at.calls(one.governor, 1)
      for (let n = 0; n < 4; n++) {
        yield* at.calls(one.governor, 1, ["a"])
        yield* TestClock.adjust("15 seconds")
      }
      assert.isUndefined(yield* answerMillis)
      yield* at.calls(other.governor, 1)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* answerMillis, 10_000)
      yield* TestClock.adjust("15 seconds")
      // It hangs, which only the first process sees.
      at.millis["a"] = 10_000_000
      yield* at.calls(one.governor, 16, ["a"])
      yield* TestClock.adjust("20 seconds")
      const before = at.counted("a")
      yield* at.calls(one.governor, 1)
      yield* at.calls(other.governor, 1)
      yield* TestClock.adjust("2 seconds")
      yield* at.calls(other.governor, 5)
      yield* TestClock.adjust("2 seconds")
      assert.isAtMost(at.counted("a") - before, 2)
      assert.isAbove((yield* answerMillis)!, 20_000)
      // Once that process is gone, nobody knows how its calls end.
      yield* one.dies
      yield* TestClock.adjust("1 minute")
      yield* at.calls(other.governor, 1)
      yield* TestClock.adjust("2 seconds")
      assert.isBelow((yield* answerMillis)!, 14_000)
    }).pipe(Effect.scoped)
  )

  it.effect("are learned once, in the order in which they ended", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const at = world({ a: 10_000, b: 10_000 })
      const [one, other] = [yield* process(store), yield* process(store)]
      const ask = ({ governor }: typeof one, places?: ReadonlyArray<string>) =>
        Effect.andThen(at.calls(governor, 1, places), TestClock.adjust("25 seconds"))
      yield* ask(one)
      yield* ask(one, ["a"])
      at.millis["a"] = 20_000
      yield* ask(one, ["a"])
      const [told] = (yield* one.governor.places).filter(({ pool }) => pool === "a/m")
      at.millis["a"] = 1_000_000
      for (let n = 0; n < 4; n++) {
        yield* at.calls(other.governor, 1)
        yield* TestClock.adjust("2 seconds")
        const [heard] = (yield* other.governor.places).filter(({ pool }) => pool === "a/m")
        assert.strictEqual(heard?.answerMillis, told!.answerMillis)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("are told if they end during an exchange, and after the store did not answer", () =>
    Effect.gen(function* () {
      const store = new CountingStore()
      const at = world({ a: 300, b: 300 })
      const [one, other] = [yield* process(store), yield* process(store)]
      const heard = Effect.gen(function* () {
        yield* at.calls(other.governor, 1)
        yield* TestClock.adjust(100)
        const states = yield* other.governor.places
        return Math.max(...states.map(({ answerMillis = 0 }) => answerMillis))
      })
      store.latency = 500
      yield* at.calls(one.governor, 1)
      yield* TestClock.adjust("5 seconds")
      store.latency = 0
      assert.strictEqual(yield* heard, 300)
      yield* TestClock.adjust("5 seconds")
      store.latency = 10_000_000
      Object.assign(at.millis, { a: 5_000, b: 5_000 })
      yield* at.calls(one.governor, 4)
      yield* TestClock.adjust("4 seconds")
      store.latency = 0
      yield* TestClock.adjust("5 seconds")
      assert.isAbove(yield* heard, 1_000)
    }).pipe(Effect.scoped)
  )

  it.effect("are exchanged at most once a second for each place, and not while nobody calls", () =>
    Effect.gen(function* () {
      const store = new CountingStore()
      const { calls } = world({ a: 300, b: 300 })
      const [one, other] = [yield* process(store), yield* process(store)]
      for (let n = 0; n < 20; n++) {
        yield* calls(one.governor, 1)
        yield* calls(other.governor, 1)
        yield* TestClock.adjust(500)
      }
      assert.lengthOf(store.counts, 2)
      // Two processes in ten seconds. An exchange that another process was faster in is repeated.
      for (const count of store.counts) assert.isTrue(count >= 10 && count <= 44, `${count} exchanges`)
      yield* TestClock.adjust("5 seconds")
      const before = { ...store.at }
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(store.at, before)
    }).pipe(Effect.scoped)
  )

  it.effect("delay no call if the store hangs, fails or has something else", () =>
    Effect.gen(function* () {
      const inner = new MapStore()
      const broken: Array<Effect.Effect<never, BudgetStore.StoreError>> = [
        Effect.never,
        Effect.fail(new BudgetStore.StoreError({ cause: "away" })),
        Effect.die(new Error("broken"))
      ]
      let how = 0
      const isBroken = (key: string): boolean => key.startsWith("answers:")
      const store: BudgetStore.Store = {
        read: (key) => (isBroken(key) ? broken[how++ % 3]! : inner.read(key)),
        swap: (key, ...more) => (isBroken(key) ? broken[how++ % 3]! : inner.swap(key, ...more))
      }
      const { calls, counted } = world({ a: 500, b: 500 })
      const { governor } = yield* process(store)
      for (let n = 0; n < 20; n++) {
        const fibers = yield* calls(governor, 2)
        yield* TestClock.adjust("2 seconds")
        for (const fiber of fibers) assert.isDefined(fiber.pollUnsafe())
      }
      assert.isAbove(how, 3)
      assert.strictEqual(counted("a") + counted("b"), 40)
    }).pipe(Effect.scoped)
  )

  it.effect("replace a record that no process can have written", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const { calls } = world({ a: 500, b: 500 })
      const { governor } = yield* process(store)
      const key = "answers:1:a/m"
      for (const value of ["{", "[]", `{"ended":[{"by":1}],"sent":[],"processes":{}}`]) {
        const stored = yield* store.read(key)
        yield* store.swap(key, stored?.version, { version: value, value }, 1_000)
        yield* calls(governor, 2)
        yield* TestClock.adjust("3 seconds")
        const found: unknown = JSON.parse((yield* store.read(key))!.value)
        assert.hasAllKeys(found as object, ["ended", "sent", "processes"])
        assert.isNotEmpty((found as { readonly ended: ReadonlyArray<unknown> }).ended)
      }
    }).pipe(Effect.scoped)
  )
})
