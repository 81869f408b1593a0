/** `floodgate caps`: shows, raises and resets the caps in dollars of a running gateway. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Asking from "./asking.ts"
import * as CapTable from "./capTable.ts"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as Print from "@floodgate/gateway/internal/print"
import { oneLine } from "@floodgate/gateway/internal/text"
import * as Operating from "./operating.ts"

const flags = {
  cap: Argument.String("cap").pipe(
    Argument.withDescription("The name of a cap, or its id if several have that name (default: all)"),
    Argument.optional
  ),
  usd: Flags.positive("usd", 1_000_000).pipe(
    Flags.optional("Set the cap to this many dollars, until the gateway reads its configuration again")
  ),
  reset: Flags.toggle("reset", "Forget what was spent in the period; what running calls have reserved still counts"),
  gateway: Asking.gatewayFlag,
  json: Flags.toggle("json", "Print one JSON object")
}

/** A cap as the status of a gateway has it. */
export const ShownCap = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  dollars: Schema.Finite,
  spent: Schema.Finite,
  /** Only in the status, not in the answer to a change. */
  held: Schema.optionalKey(Schema.Finite),
  left: Schema.optionalKey(Schema.Finite),
  until: Schema.optionalKey(Schema.Finite)
})

const Status = Schema.Struct({ caps: Schema.Array(ShownCap) })

const table = (caps: ReadonlyArray<typeof ShownCap.Type>): string =>
  caps.length === 0
    ? "The gateway has no caps in dollars."
    : CapTable.lines(caps.map(({ dollars, ...cap }) => ({ ...cap, limit: dollars }))).join("\n")

/** The command. */
export const capsCommand = Command.make(
  "caps",
  flags,
  Effect.fnUntraced(function* ({ cap, gateway, json, reset, usd }) {
    const address = yield* Asking.addressOf(gateway)
    const name = Option.getOrUndefined(cap)
    let changed: typeof ShownCap.Type | undefined
    if (reset || Option.isSome(usd)) {
      if (name === undefined)
        return yield* Exit.failure(
          "usage",
          "Say which cap to change, as in `floodgate caps search --usd 20`; `floodgate caps` lists them"
        )
      const body = { cap: name, dollars: Option.getOrUndefined(usd), reset }
      changed = yield* Operating.change(address, "caps", body, ShownCap)
    }
    const { caps: all } = yield* Operating.read(address, "status", Status)
    const named = name === undefined ? all : all.filter((each) => each.name === name || each.id === name)
    // The status leaves out the cap of an agent that has spent nothing, as after a reset.
    const caps = named.length === 0 && changed !== undefined ? [changed] : named
    if (name !== undefined && caps.length === 0) {
      const known = all.map((each) => `"${oneLine(each.name)}"`).join(", ")
      return yield* Exit.failure(
        "usage",
        `The gateway shows no cap named "${oneLine(name)}"${known === "" ? "" : `: it has ${known}`}`
      )
    }
    return yield* json ? Print.json({ caps }, 2) : Print.out(table(caps))
  })
).pipe(
  Command.withDescription(
    "Shows the caps in dollars of a running gateway: what was spent, what running calls have reserved, and when the period ends. With --usd it raises or lowers a cap, with --reset it forgets what was spent, for all gateways that share the cap. Changes need the admin token of the gateway in FLOODGATE_GATEWAY_ADMIN_TOKEN; a gateway with a token reads it from FLOODGATE_GATEWAY_TOKEN."
  ),
  Command.withExamples([
    { command: "floodgate caps", description: "All caps of the gateway on this machine" },
    { command: "floodgate caps search --usd 150", description: "Raises a cap until the configuration is read again" },
    {
      command: "floodgate caps search --reset --gateway http://gateway:8788",
      description: "Sets what was spent in the period to zero"
    }
  ])
)
