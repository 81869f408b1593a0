/**
 * The public API, read from the sources: its modules, and their exports in the order in which readers need them. The page docs/api.md,
 * the pages of the site and the tests of names and docstrings come from it.
 *
 * `npm run docs:api` writes docs/api.md; test/docs.lint.test.ts compares it.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import ts from "typescript6"
import { exportsOf, headerOf, parse, publicModules, root, textOfDoc } from "../test/support/modules.ts"

/** A name that a module exports. Overloads, and a type and a value of one name, are one export. */
export interface ApiExport {
  readonly name: string
  /** Where it is declared. */
  readonly nodes: ReadonlyArray<ts.Statement>
  /** Whether it is there when a program runs: not only a type. */
  readonly isValue: boolean
  /** The docstring. A namespace may have one of its own, beside that of its module. */
  readonly doc: string
  readonly stability: string
  /** The file of a namespace; undefined for everything else. */
  readonly namespace: string | undefined
}

/** A module, or a namespace of one, that a user imports. */
export interface ApiModule {
  readonly name: string
  /** The module that has this namespace; undefined for a module. */
  readonly parent: string | undefined
  readonly file: string
  readonly doc: string
  readonly stability: string
  readonly exports: ReadonlyArray<ApiExport>
}

/** The value of a tag such as `@category` in a docstring. */
export const tagOf = (doc: string, tag: string): string | undefined =>
  new RegExp(`^@${tag} (.+(?:\\n(?!@).+)*)`, "m").exec(textOfDoc(doc))?.[1]?.trim()

/** The values of `@stability`, in the words of Effect; see docs/figures/compatibility.md. */
export const stabilities = ["stable", "unstable", "experimental"]

/** Every category, in the order in which readers need them: models and constructors, then operations, then errors. */
const order = [
  "modules",
  "services",
  "constructors",
  "layers",
  "combinators",
  "schedules",
  "running",
  "playing",
  "presets",
  "prices",
  "providers",
  "protocols",
  "scenarios",
  "strategies",
  "sessions",
  "traces",
  "tables",
  "rendering",
  "getters",
  "references",
  "options",
  "models",
  "schemas",
  "errors"
]

/** The rank of an export's category; -1 if it is unknown. */
export const rankOf = ({ doc, namespace }: ApiExport): number =>
  order.indexOf(namespace === undefined ? (tagOf(doc, "category") ?? "") : "modules")

const exportsIn = (file: string): ReadonlyArray<ApiExport> => {
  const byName = new Map<string, ApiExport>()
  for (const { doc, isValue, name, namespace, node } of exportsOf(file)) {
    const known = byName.get(name)
    const isFirst = known === undefined || (tagOf(known.doc, "since") === undefined && doc !== "")
    byName.set(name, {
      name,
      nodes: [...(known?.nodes ?? []), node],
      isValue: isValue || known?.isValue === true,
      doc: isFirst ? doc : known.doc,
      stability: tagOf(isFirst ? doc : known.doc, "stability") ?? "",
      namespace
    })
  }
  return [...byName.values()].sort((one, other) => rankOf(one) - rankOf(other))
}

const moduleOf = (name: string, file: string, parent?: string): ApiModule => ({
  name,
  parent,
  file,
  doc: headerOf(parse(file)),
  stability: tagOf(headerOf(parse(file)), "stability") ?? "",
  exports: exportsIn(file)
})

/** All public modules but the root, which has the modules of the core by their names, each followed by its namespaces. */
export const apiModules = (): ReadonlyArray<ApiModule> =>
  publicModules()
    .filter(({ name }) => name !== "floodgate")
    .flatMap(({ file, name }) => {
      const module = moduleOf(name, file)
      const inner = module.exports.flatMap(({ name: own, namespace }) =>
        namespace === undefined ? [] : [moduleOf(own, namespace, name)]
      )
      return [module, ...inner]
    })

// -----------------------------------------------------------------------------
// docs/api.md
// -----------------------------------------------------------------------------

/** The first sentence of a docstring, in one line of Markdown. */
const firstSentence = (doc: string): string => {
  const paragraph = textOfDoc(doc).split(/\n\s*\n|\n(?=@|- )/)[0]!
  const line = paragraph
    .replace(/\s+/g, " ")
    .replace(/\{@link ([^}]*)\}/g, "`$1`")
    .replaceAll("|", "\\|")
  return line.startsWith("@") ? "" : (/^.*?[.!?](?=\s|$)/.exec(line)?.[0] ?? line)
}

/** The members of an interface, or of the shape in `class Name extends Context.Service<Name, Shape>`. */
const shapeOf = (node: ts.Statement): ReadonlyArray<ts.TypeElement> => {
  if (ts.isInterfaceDeclaration(node)) return node.members
  if (!ts.isClassDeclaration(node)) return []
  const call = node.heritageClauses?.[0]?.types[0]?.expression
  const made = call !== undefined && ts.isCallExpression(call) ? call.expression : undefined
  const shape = made !== undefined && ts.isCallExpression(made) ? made.typeArguments?.[1] : undefined
  return shape !== undefined && ts.isTypeLiteralNode(shape) ? shape.members : []
}

/** The names of the functions and effects that a service or an interface has. */
const membersOf = (node: ts.Statement): ReadonlyArray<string> =>
  shapeOf(node).flatMap((member) => {
    if (!ts.isPropertySignature(member) || member.type === undefined || member.questionToken !== undefined) return []
    const runs = ts.isFunctionTypeNode(member.type) || /^(Effect\.Effect|Stream\.Stream)</.test(member.type.getText())
    return runs ? [`\`${member.name.getText()}\``] : []
  })

const tableOf = (module: ApiModule): string => {
  const { stability } = module
  const rows = module.exports.map((one, index, all) => {
    const isFirst = index === 0 || rankOf(one) !== rankOf(all[index - 1]!)
    const members = one.nodes.flatMap(membersOf)
    const isWeaker = stabilities.indexOf(one.stability) > stabilities.indexOf(stability)
    const text = [
      ...(isWeaker && one.namespace === undefined ? [`**${one.stability}**:`] : []),
      firstSentence(one.doc) || firstSentence(headerOf(parse(one.namespace ?? module.file))),
      ...(members.length === 0 ? [] : [`Has ${members.join(", ")}.`])
    ]
    return `| ${isFirst ? order[rankOf(one)] : ""} | \`${one.name}\` | ${text.join(" ")} |`
  })
  return ["| | export | |", "| --- | --- | --- |", ...rows].join("\n")
}

/** The page is part of the library's package, which has no sources of the others. */
const sourceOf = (file: string): string =>
  file.startsWith("packages/") ? `Source: \`${file}\`` : `[Source](../${file})`

/** The whole page. */
export const render = (): string => {
  const sections = apiModules().flatMap((module) => [
    `${module.parent === undefined ? "##" : "###"} ${module.name}`,
    `${firstSentence(module.doc)} Stability: ${module.stability}. ${sourceOf(module.file)}`,
    tableOf(module)
  ])
  return `# API reference

Every public module with its exports by category, the first sentence of each docstring, and the members of each service.
The docstrings have details, gotchas and tested examples. \`npm run docs:api\` generates this page.

The package's root exports the core modules by their names: \`import { Budget } from "floodgate"\` is
\`import * as Budget from "floodgate/Budget"\`. [Compatibility](figures/compatibility.md) says what stable, unstable and experimental
promise; an export that differs from its module says so.

${sections.join("\n\n")}
`
}

if (import.meta.main) writeFileSync(join(root, "docs/api.md"), render())
