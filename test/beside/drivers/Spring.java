import java.sql.DriverManager;
import org.springframework.aop.framework.ProxyFactory;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.jdbc.datasource.DataSourceTransactionManager;
import org.springframework.jdbc.datasource.DriverManagerDataSource;
import org.springframework.transaction.annotation.AnnotationTransactionAttributeSource;
import org.springframework.transaction.annotation.Transactional;
import org.springframework.transaction.interceptor.TransactionInterceptor;

/** The documentation's method in Spring's transactions. */
public class Spring {
    public interface Invoices {
        void pay(long invoice, String user);
    }

    static class Shop implements Invoices {
        final JdbcTemplate jdbc;

        Shop(JdbcTemplate jdbc) {
            this.jdbc = jdbc;
        }

        // SNIPPET
    }

    public static void main(String[] args) {
        DriverManagerDataSource source = new DriverManagerDataSource(args[0]);
        ProxyFactory proxy = new ProxyFactory(new Shop(new JdbcTemplate(source)));
        proxy.addAdvice(new TransactionInterceptor(
            new DataSourceTransactionManager(source), new AnnotationTransactionAttributeSource()));
        Invoices shop = (Invoices) proxy.getProxy(Spring.class.getClassLoader());
        shop.pay(Long.parseLong(args[1]), args[2]);
    }
}
