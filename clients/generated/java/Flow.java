// What a Java program makes of the client that openapi-generator writes (library native).
// Argument: the server's URL.

import java.util.List;
import java.util.Map;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.*;
import org.openapitools.client.model.*;

public class Flow {
  public static void main(String[] arguments) throws Exception {
    ApiClient client = new ApiClient();
    client.updateBaseUri(arguments[0]);
    StoreApi store = new StoreApi(client);
    JobsApi jobs = new JobsApi(client);
    List<String> namespace = List.of("java");

    PutItem item = new PutItem().namespace(namespace).key("food").value(Map.of("text", "ramen"));
    store.putItem(item.index(false), null, null);
    store.putItem(item.index(List.of("text")), null, null);
    System.out.println("get: " + store.getItem("food", "java", null, null, null, null, null).getValue().get("text"));

    SearchItems search = new SearchItems().namespacePrefix(namespace).filter(Map.of("text", "ramen"));
    System.out.println("search: " + new SearchApi(client).searchItems(search, null).getItems().get(0).getKey());

    ManagerConfig config =
        new ManagerConfig().strategy(ManagerConfig.StrategyEnum.VERBATIM).namespace(List.of("java", "{user}"));
    new ManagersApi(client).putManager("java", config, null, null);
    List<ConversationMessage> messages =
        List.of(new ConversationMessage().role("user").content("I love ramen."));
    ExtractRequest byName =
        new ExtractRequest().manager("java").variables(Map.of("user", "ann")).messages(messages);
    Job job = jobs.extractMemories(byName, "wait=20", null);
    System.out.println("extract by name: " + job.getState() + " " + job.getResult().getExtractResult().getKind());

    ExtractRequest inline =
        new ExtractRequest()
            .managerConfig(new ManagerConfig().strategy(ManagerConfig.StrategyEnum.VERBATIM))
            .namespace(List.of("java", "bob"))
            .messages(messages);
    job = jobs.extractMemories(inline, "wait=20", null);
    System.out.println("extract inline: " + job.getState() + " " + job.getResult().getExtractResult().getKind());

    GetOperation get = new GetOperation().op(GetOperation.OpEnum.GET).namespace(namespace).key("food");
    PutOperation put =
        new PutOperation().op(PutOperation.OpEnum.PUT).namespace(namespace).key("pet").value(Map.of("n", 1));
    Batch batch = new Batch().operations(List.of(new BatchOperation(get), new BatchOperation(put)));
    List<BatchResult> results = new BatchApi(client).runBatch(batch).getResults();
    System.out.println("batch: " + results.get(0).getItem().getKey() + " " + results.get(1).getOp());

    try {
      store.putItem(item.namespace(List.of()), null, null);
    } catch (ApiException error) {
      System.out.println("problem: " + error.getCode() + " " + error.getResponseBody().contains("\"namespace\""));
    }
  }
}
