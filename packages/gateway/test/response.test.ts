import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import { Silence } from "floodgate/internal"
import { EventEmitter } from "node:events"
import type { ServerResponse } from "node:http"
import { KeyUsers } from "../src/keyUsers.ts"
import type { KeyHolder, Keyring } from "../src/keys.ts"
import * as Response from "../src/response.ts"
import { setAhead } from "../../../test/support/clock.ts"
import { incoming, outgoing, readerOf } from "../src/headers.ts"
import { makeMemory, RequestBody } from "../src/bodies.ts"

describe("a client that reads", () => {
  it.effect("is not disconnected later, and one that reads nothing is", () =>
    Effect.gen(function* () {
      const timer = Silence.timerOf(yield* Effect.context<never>())
      const disconnected: Array<string> = []
      const response = (name: string) =>
        Object.assign(new EventEmitter(), { destroy: () => void disconnected.push(name) }) as never as ServerResponse
      const [reads, hangs] = [response("reads"), response("hangs")]
      let done = 0
      for (const each of [reads, hangs]) Response.whenRead(timer, each, "drain", () => done++)
      yield* TestClock.adjust("1 second")
      reads.emit("drain")
      assert.strictEqual(done, 1)
      assert.strictEqual(reads.listenerCount("close"), 0)
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual([done, disconnected], [1, ["hangs"]])
    })
  )
})

describe("the requests of keys", () => {
  it("are broken off when their key is removed, also with the last of all keys", () => {
    for (const keyring of [undefined, { has: (id: string) => id === "kept" } as never as Keyring]) {
      const users = new KeyUsers()
      const open = new Set(["kept", "removed"])
      for (const id of open) {
        const response = Object.assign(new EventEmitter(), { destroy: () => void open.delete(id) })
        users.enter({ id } as KeyHolder, response as never as ServerResponse)
      }
      users.keep(keyring)
      assert.deepStrictEqual([...open], keyring === undefined ? [] : ["kept"])
    }
  })
})

describe("a response that is kept alive", () => {
  it.effect("gets its keep-alive text at the same times when the wall clock is set", () =>
    Effect.gen(function* () {
      let ahead = 0
      let written = ""
      const response = {
        writableNeedDrain: false,
        writeHead: () => {},
        write: (text: string) => void (written += text)
      } as never as ServerResponse
      const clock = setAhead(yield* Clock.Clock, () => ahead)
      const keeper = yield* Response.makeKeeper(Duration.seconds(20), Duration.seconds(10), () => {}).pipe(
        Effect.provideService(Clock.Clock, clock)
      )
      keeper.add({ response, contentType: "application/json", text: " ", began: false, isHeldBack: false })
      ahead = 3_600_000
      yield* TestClock.adjust("18 seconds")
      assert.strictEqual(written, "")
      ahead = -3_600_000
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(written, " ")
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(written, "  ")
    })
  )
})

describe("headers of one connection only", () => {
  const connection = "Keep-Alive, X-Hop"

  it("are those that `connection` names, whatever their case", () => {
    const sent = outgoing(["Connection", connection, "X-Hop", "1", "x-hop", "2", "X-Other", "3"], connection, false)
    assert.deepStrictEqual(sent, ["X-Other", "3"])
    assert.deepStrictEqual(incoming({ connection, "x-hop": "1", "x-other": "3" }), { "x-other": "3" })
    const read = readerOf({ connection, "x-hop": "1", "x-other": "3" })
    assert.deepStrictEqual([read("x-hop"), read("x-other")], [undefined, "3"])
  })
})

describe("the memory of bodies", () => {
  it.effect("is free again when what was held for a request is released, once", () =>
    Effect.gen(function* () {
      const memory = yield* makeMemory
      const [one, other] = [new RequestBody(memory, 100, 100), new RequestBody(memory, 100, 100)]
      assert.isTrue(one.hold(60))
      assert.isFalse(other.hold(41))
      assert.isTrue(other.hold(40))
      one.release()
      one.release()
      assert.strictEqual(memory.held, 40)
      assert.isTrue(one.hold(60))
    })
  )
})
