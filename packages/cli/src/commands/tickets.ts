/** `floodgate tickets`: shows the calls that wait for a reset at a running gateway, and cancels them. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { hint } from "floodgate/internal/nearest"
import * as Words from "floodgate/internal/words"
import * as Asking from "./asking.ts"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as Print from "@floodgate/gateway/internal/print"
import { aligned, oneLine } from "@floodgate/gateway/internal/text"
import * as Operating from "./operating.ts"

const flags = {
  ticket: Argument.String("ticket").pipe(
    Argument.withDescription("The id of a ticket, or its beginning (default: all)"),
    Argument.optional
  ),
  key: Flag.String("key").pipe(
    Flag.withMetavar("<name>"),
    Flags.optional("Only the tickets of the key with this name")
  ),
  cancel: Flags.toggle("cancel", "Cancel the ticket, or all of the key; calls that were sent end as usual"),
  gateway: Asking.gatewayFlag,
  json: Flags.toggle("json", "Print one JSON object")
}

const Ticket = Schema.Struct({
  id: Schema.String,
  key: Schema.String,
  agent: Schema.String,
  bytes: Schema.Finite,
  order: Schema.Finite,
  at: Schema.Finite,
  state: Schema.String
})
type ShownTicket = typeof Ticket.Type

const Tickets = Schema.Struct({ tickets: Schema.Array(Ticket) })

/** So much of an id is shown as text. */
const shownId = 13

const states: Readonly<Record<string, string>> = { unknown: "unknown outcome" }

const table = (tickets: ReadonlyArray<ShownTicket>): string => {
  if (tickets.length === 0) return "No call waits for a reset with a ticket."
  return aligned([
    ["ticket", "state", "until", "key", "agent", "bytes", "order"],
    ...tickets.map(({ agent, at, bytes, id, key, order, state }) => [
      oneLine(id).slice(0, shownId),
      states[state] ?? oneLine(state),
      new Date(at).toISOString(),
      oneLine(key),
      oneLine(agent),
      Words.compact(bytes),
      `${order}`
    ])
  ]).join("\n")
}

/** The tickets that are meant, or what is wrong with their id or key. */
const meant = (
  all: ReadonlyArray<ShownTicket>,
  id: string | undefined,
  key: string | undefined
): ReadonlyArray<ShownTicket> | string => {
  const keys = new Set(all.map((each) => each.key))
  if (key !== undefined && !keys.has(key)) {
    return `No ticket is of a key named "${oneLine(key)}"${keys.size === 0 ? "" : `: ${oneLine(hint(key, keys))}`}`
  }
  const ofKey = key === undefined ? all : all.filter((each) => each.key === key)
  if (id === undefined) return ofKey
  const found = ofKey.filter((each) => id !== "" && each.id.startsWith(id))
  if (found.length === 1) return found
  if (found.length > 1) return `${found.length} tickets begin with "${oneLine(id)}": write more of the id`
  // Of each, as much is compared as was given.
  const beginnings = ofKey.map((each) => each.id.slice(0, Math.max(shownId, id.length)))
  const near = beginnings.length === 0 || id === "" ? "" : `: ${oneLine(hint(id, beginnings.slice(0, 20)))}`
  return `The gateway shows no ticket with the id "${oneLine(id)}"${near}`
}

/** The command. */
export const ticketsCommand = Command.make(
  "tickets",
  flags,
  Effect.fnUntraced(function* ({ cancel, gateway, json, key: givenKey, ticket }) {
    const address = yield* Asking.addressOf(gateway)
    const [id, key] = [Option.getOrUndefined(ticket), Option.getOrUndefined(givenKey)]
    if (cancel && id === undefined && key === undefined) {
      return yield* Exit.failure(
        "usage",
        "Say which tickets to cancel, as in `floodgate tickets 5f0c2a9d --cancel` or `--key search --cancel`; `floodgate tickets` lists them"
      )
    }
    const { tickets: all } = yield* Operating.read(address, "tickets", Tickets)
    const found = meant(all, id, key)
    if (typeof found === "string") return yield* Exit.failure("usage", found)
    const body = id === undefined ? { cancelKey: key } : { cancel: found[0]?.id }
    const { tickets } = cancel ? yield* Operating.change(address, "tickets", body, Tickets) : { tickets: found }
    return yield* json ? Print.json({ tickets }, 2) : Print.out(table(tickets))
  })
).pipe(
  Command.withDescription(
    "Shows the calls that wait for a reset with a ticket at a running gateway: whose they are, how large, in which order, until when, and their state. `waiting` is before its time, `due` may be sent now, `sent` runs, and `unknown outcome` was sent and not answered, so that its caller must find out. With --cancel it cancels one that was not sent, or all of a key. Changes need the admin token of the gateway in FLOODGATE_GATEWAY_ADMIN_TOKEN; a gateway with a token reads it from FLOODGATE_GATEWAY_TOKEN."
  ),
  Command.withExamples([
    { command: "floodgate tickets", description: "The tickets of the gateway on this machine" },
    { command: "floodgate tickets 5f0c2a9d --cancel", description: "Cancels the ticket whose id begins so" },
    { command: "floodgate tickets --key search --cancel", description: "Cancels all tickets of a key that wait" }
  ])
)
