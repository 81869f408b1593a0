/**
 * A provider in a thread of its own, for `fleet.ts`: it notes every call as it arrives, and answers after a while.
 *
 * A busy machine lets this thread wait, too, and then it notes calls later than they arrived. So each entry says between
 * which moments the call came in: after the turn of the event loop that would have seen it, and before it was seen.
 */
import { createServer } from "node:http"
import { parentPort, workerData } from "node:worker_threads"

const { latencyMillis } = workerData as { readonly latencyMillis: number }

/** Milliseconds since the epoch, as the server of Redis counts them. */
const now = () => performance.timeOrigin + performance.now()

/** When the last turns of the event loop began. A connection is accepted in one turn and read in the next. */
const turns = [now(), now(), now()] as [number, number, number]
setInterval(() => {
  turns[0] = turns[1]
  turns[1] = turns[2]
  turns[2] = now()
}, 1)

/** To the one who started this thread. */
const say = (message: object): void => {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin: the rule thinks of windows
  parentPort!.postMessage(message)
}

let inFlight = 0
let peak = 0
const server = createServer((request, response) => {
  const from = turns[0]
  const at = now()
  if (request.method === "GET") {
    response.end("{}")
    return
  }
  let body = ""
  let open = true
  const end = () => {
    if (open) inFlight--
    open = false
  }
  peak = Math.max(peak, ++inFlight)
  response.on("close", end)
  request.on("data", (chunk) => (body += chunk))
  request.on("end", () => {
    say({ peak, entry: { from, at, ...(JSON.parse(body) as object) } })
    setTimeout(() => {
      end()
      response.end("{}")
    }, latencyMillis)
  })
})
server.keepAliveTimeout = 60_000
server.listen(0, "127.0.0.1", () => {
  const address = server.address()
  say({ port: typeof address === "object" && address !== null ? address.port : 0 })
})
