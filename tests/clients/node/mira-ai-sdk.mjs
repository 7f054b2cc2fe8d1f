// The Vercel AI SDK asks for two pictures and prints what it understood as JSON.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateImage } from "ai";

const mira = createOpenAICompatible({
  name: "mira",
  apiKey: "sk-mira-test",
  baseURL: `${process.env.SANDBOX_URL}/v1`,
});

try {
  const { images } = await generateImage({
    model: mira.imageModel("mira-image"),
    prompt: "a harbour",
    size: "1024x1536",
    n: 2,
    maxRetries: 0,
  });
  const told = images.map(({ base64, mediaType }) => ({ base64, mediaType }));
  console.log(JSON.stringify({ images: told }));
} catch (error) {
  console.log(JSON.stringify({ refused: APICallError.isInstance(error), status: error.statusCode }));
}
