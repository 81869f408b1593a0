import { assert, describe, it } from "@effect/vitest"
import { protocols } from "floodgate/protocol"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { match } from "../../src/protocol/protocol.ts"
import { clients } from "./clients.ts"

const { anthropic, gemini, openaiChat, openaiResponses } = protocols

// When a cap in dollars is reached, no real client repeats the call, and its user can read why.

const message =
  "The call may cost $2.00, but only $0.10 is left of the cap of $5.00 a day for agent a: wait until midnight"

describe("a refusal of dollars", () => {
  for (const { make, name } of clients) {
    it(`is not retried by ${name}`, async () => {
      let requests = 0
      const server = createServer((request, response) => {
        requests++
        request.resume()
        const found = match([anthropic, openaiChat, openaiResponses, gemini], "POST", request.url!)
        const { body, headers, status } = found!.protocol.refuse({ kind: "spendLimited", message })
        response.writeHead(status, headers).end(body)
      })
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
      try {
        const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
        const failure = await make({ url, floodgate: undefined })("Hello", "a").then(
          () => assert.fail("it was answered"),
          (error: unknown) => error
        )
        assert.strictEqual(requests, 1)
        assert.include(`${String(failure)} ${JSON.stringify(failure)}`, "only $0.10 is left")
      } finally {
        server.closeAllConnections()
        server.close()
      }
    })
  }
})
