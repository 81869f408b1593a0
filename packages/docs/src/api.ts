/** Pages of the API: each export of a module with its signature, its docstring and its examples. Reads the sources. */
import ts from "typescript6"
import { type ApiExport, type ApiModule, apiModules, tagOf } from "../../../scripts/api.ts"
import { packageFiles, parse, textOfDoc } from "../../../test/support/modules.ts"

/** A page of the API. */
export interface ApiPage {
  /** The name that a user imports. */
  readonly module: string
  readonly page: string
  readonly text: string
}

/** Links of docstrings as plain names. */
const withoutLinks = (text: string, quote: string): string =>
  text.replaceAll(/\{@link ([^}]*)\}/g, `${quote}$1${quote}`)

/** A docstring as Markdown: links become code, headings of its parts stay bold, and tags become sentences. */
export const markdownOf = (doc: string): string => {
  const [text = ""] = withoutLinks(textOfDoc(doc), "`").split(/^@(?=[a-z])/m)
  const valueOf = (tag: string): string | undefined => {
    const value = tagOf(doc, tag)
    return value === undefined ? undefined : withoutLinks(value, "`")
  }
  const [stability = "", since, defaultsTo, deprecated] = ["stability", "since", "default", "deprecated"].map(valueOf)
  const prose = text.trim().replaceAll("```ts doctest", "```ts")
  return [
    deprecated === undefined ? "" : `**Deprecated**: ${deprecated}`,
    prose,
    defaultsTo === undefined ? "" : `**Default**: ${defaultsTo}`,
    since === undefined ? "" : `${stability.charAt(0).toUpperCase()}${stability.slice(1)}, since ${since}.`
  ]
    .filter((part) => part !== "")
    .join("\n\n")
}

/** The schemas of the packages by name, which have the members of the types that are made from them. */
const schemas = new Map(
  packageFiles().flatMap((file) =>
    parse(file).statements.flatMap((statement) => {
      const [, name] = /^export const (\w+) = Schema\.Struct\(/.exec(statement.getText()) ?? []
      return name === undefined ? [] : [[name, statement] as const]
    })
  )
)

/** The schemas of other files that an interface is made from. */
const schemasIn = (node: ts.InterfaceDeclaration): ReadonlyArray<string> =>
  Array.from(node.getText().matchAll(/Type<typeof (?:\w+\.)?(\w+)>/g), ([, name]) => schemas.get(name!))
    .filter((schema) => schema !== undefined && schema.getSourceFile().fileName !== node.getSourceFile().fileName)
    .map((schema) => schema!.getText())

/** A declaration without what it does: the body of a function, or the value of a constant with a type. */
const signatureOf = (node: ts.Statement): string => {
  const text = (from: ts.Node, to: number): string => from.getSourceFile().text.slice(from.getStart(), to).trim()
  if (ts.isInterfaceDeclaration(node)) return [node.getText(), ...schemasIn(node)].join("\n\n")
  if (ts.isFunctionDeclaration(node)) return text(node, node.body?.getStart() ?? node.end)
  if (!ts.isVariableStatement(node)) return node.getText()
  const [declaration] = node.declarationList.declarations
  const { initializer, type } = declaration!
  if (initializer === undefined) return node.getText()
  if (type !== undefined) return text(node, type.end)
  if (ts.isArrowFunction(initializer)) return `${text(node, initializer.equalsGreaterThanToken.end)} ...`
  return initializer.getText().length < 400 ? node.getText() : `${text(node, initializer.getStart())}...`
}

/** Comments of members are in the signature, where their units and defaults stand beside the types. */
const entryOf = ({ doc, name, nodes }: ApiExport): string => {
  const signature = withoutLinks(nodes.map(signatureOf).join("\n\n"), "")
  return [`## ${name}`, markdownOf(doc), `\`\`\`ts\n${signature}\n\`\`\``].join("\n\n")
}

const pageOf = ({ doc, exports, name, parent }: ApiModule): ReadonlyArray<ApiPage> => {
  const module = parent === undefined ? name : `${parent}: ${name}`
  const entries = exports.filter(({ namespace }) => namespace === undefined).map(entryOf)
  const page = `api/${module.replace("@", "").replaceAll(/\/|: /g, "-")}.md`
  return entries.length === 0
    ? []
    : [{ module, page, text: [`# ${module}`, markdownOf(doc), ...entries, ""].join("\n\n") }]
}

/** The pages of all public modules. */
export const apiPages = (): ReadonlyArray<ApiPage> => apiModules().flatMap(pageOf)
