/** The headers that a gateway passes on. */
import { assert, describe, it } from "@effect/vitest"
import { incoming, outgoing, readerOf } from "../src/headers.ts"

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
