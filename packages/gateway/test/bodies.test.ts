/** What a gateway holds of requests in memory. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { makeMemory, RequestBody } from "../src/bodies.ts"

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
