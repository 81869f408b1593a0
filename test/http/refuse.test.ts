import { assert, describe, it } from "@effect/vitest"
import * as Budget from "floodgate/Budget"
import { protocols } from "floodgate/protocol"
import * as Spending from "floodgate/Spending"
import * as Trees from "floodgate/Trees"
import { Engine } from "floodgate/internal"

const store = new Error("away")
const reached = { tree: "the job", agent: "a", by: "agents", limit: 20 } as const

describe("refuse", () => {
  it("answers a store that is away with a status that is retried, and a cap with one that no client of the protocol retries", () => {
    const causes = [
      new Spending.LedgerUnavailable({ purse: "the team", cause: store }),
      new Trees.TreeUnavailable({ tree: "the job", cause: store }),
      new Trees.TreeCapReached(reached),
      new Error("another layer")
    ]
    for (const name of ["anthropic", "openaiChat", "openaiResponses", "gemini"] as const) {
      const call = { match: { protocol: protocols[name] } } as unknown as Engine.HttpCall
      const answers = causes.map((cause) => {
        const error = new Budget.BudgetError({ reason: new Budget.Denied({ cause }) })
        const { headers, status } = Engine.refuse(call, error)!.response
        return [status, headers["retry-after"], headers["x-should-retry"]]
      })
      assert.deepStrictEqual(answers, [
        [503, "5", undefined],
        [503, "5", undefined],
        [400, undefined, "false"],
        [name === "openaiResponses" ? 400 : 402, undefined, "false"]
      ])
    }
  })
})
