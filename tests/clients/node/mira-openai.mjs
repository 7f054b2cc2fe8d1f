// OpenAI's own package asks for a link, then for the bytes of two pictures, and prints what it understood as JSON.
import OpenAI from "openai";

const client = new OpenAI({ apiKey: "sk-mira-test", baseURL: `${process.env.SANDBOX_URL}/v1`, maxRetries: 0 });

try {
  const linked = await client.images.generate({ prompt: "a harbour", size: "1024x1024" });
  const whole = await client.images.generate({
    prompt: "a harbour",
    size: "1536x1024",
    n: 2,
    response_format: "b64_json",
  });
  console.log(JSON.stringify({ link: linked.data[0].url, pictures: whole.data.map((image) => image.b64_json) }));
} catch (error) {
  console.log(JSON.stringify({ rateLimited: error instanceof OpenAI.RateLimitError, status: error.status }));
}
