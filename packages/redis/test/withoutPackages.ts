/** A process without some packages. It prints the name of its connection at the server, or why it has none. */
import * as Effect from "effect/Effect"
import { registerHooks } from "node:module"
import { connect } from "../src/client.ts"

const [url, ...without] = process.argv.slice(2)

registerHooks({
  resolve: (specifier, context, next) => {
    if (!without.includes(specifier)) return next(specifier, context)
    throw Object.assign(new Error(`Cannot find package '${specifier}'`), { code: "ERR_MODULE_NOT_FOUND" })
  }
})

const program = Effect.gen(function* () {
  const { send } = yield* connect(url!)
  const info = String(yield* send("key", ["CLIENT", "INFO"]))
  return /lib-name=([\w-]*)/.exec(info)?.[1]
}).pipe(
  Effect.scoped,
  Effect.catch(({ message }) => Effect.succeed(message))
)

console.log(await Effect.runPromise(program))
